"""Hearing of the end of processes at once: a pidfd each, in the event loop.

`cloud` watches every process that it starts or finds; those of an earlier service are no children
of ours, and are heard all the same.  A process that cannot be watched is still seen by listings.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from vmshepherd_kit import log

from .proc import Life, Process

_log = log.get("iaas.process")


class Watch:
    """The processes being watched; close it to watch none."""

    def __init__(self, ended: Callable[[Process], None]) -> None:
        self._ended = ended
        self._fds: dict[Process, int] = {}

    def begin(self, process: Process) -> None:
        """Call back when it ends, soon if it has ended."""
        if process in self._fds:
            return
        loop = asyncio.get_running_loop()
        try:
            fd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            loop.call_soon(self._ended, process)
        except OSError as e:
            _log.warning("process cannot be watched", pid=process.pid, error=str(e))
        else:
            self._fds[process] = fd
            # Had another process the pid by now, its end would never be ours.
            if process.life() is Life.ENDED:
                loop.call_soon(self._end, process)
            else:
                loop.add_reader(fd, self._end, process)

    def close(self) -> None:
        """Stop watching."""
        for process in list(self._fds):
            self._forget(process)

    def _end(self, process: Process) -> None:
        if process in self._fds:
            self._forget(process)
            self._ended(process)

    def _forget(self, process: Process) -> None:
        fd = self._fds.pop(process)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
