"""Processes of runtime_service over one store, for bench/locks.py: started, killed, held up.

All of it blocks; from an event loop it is called in a thread.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from tests.e2e.daemon import VMSHEPHERD, Daemon
from tests.e2e.waiting import until
from tests.support.postgres import free_port

_TOLD: Final = 400


def await_listening(
    port: int, is_alive: Callable[[], bool], last_words: Callable[[], str] = str
) -> None:
    """Wait until a process takes connections.  RuntimeError when it ends before."""

    def listens() -> bool:
        if not is_alive():
            raise RuntimeError(f"runtime_service has ended: {last_words()[-4000:]}")
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True

    until(listens, "runtime_service takes connections", pause=0.01)


class Services:
    """So many processes of one configuration; none of them outlives the block.

    `before` is put before each command: what changes its surroundings.
    """

    def __init__(
        self,
        folder: Path,
        driver: str,
        options: Mapping[str, Any],
        *,
        count: int = 1,
        before: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._before = before
        self._ports = [free_port() for _ in range(count)]
        self._daemons: dict[int, Daemon] = {}
        for number, port in enumerate(self._ports):
            configuration = {
                "suite_id": "bench",
                "state_dir": str(folder / "state"),
                "log": {"format": "logfmt"},
                "runtime": {
                    "listen": {"address": f"127.0.0.1:{port}"},
                    "driver": driver,
                    "options": dict(options),
                },
            }
            self._file(number).write_text(yaml.safe_dump(configuration))

    def __enter__(self) -> Self:
        try:
            for number in range(len(self._ports)):
                self._launch(number)
            for number in range(len(self._ports)):
                self._await(number)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def addresses(self) -> list[str]:
        """Where they listen, by their numbers."""
        return [f"127.0.0.1:{port}" for port in self._ports]

    def pid(self, number: int) -> int:
        """Of one of them."""
        return self._daemons[number].pid

    def kill(self, number: int) -> None:
        """End one as a power failure does."""
        self._daemons[number].kill()

    def start(self, number: int) -> None:
        """Run one that was killed, until it takes connections."""
        self._launch(number)
        self._await(number)

    def pause(self, number: int) -> None:
        """Let one stand still: it neither answers nor closes connections."""
        os.kill(self.pid(number), signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let it go on."""
        os.kill(self.pid(number), signal.SIGCONT)

    def ended(self) -> list[str]:
        """The last words of those that have ended by themselves."""
        return [each.said()[-4000:] for each in self._daemons.values() if not each.is_alive]

    def incidents(self) -> list[str]:
        """The ends of what they logged as bugs."""
        lines = [line for each in self._daemons.values() for line in each.said().splitlines()]
        return [f"… {line[-_TOLD:]}" for line in lines if " incident=" in line]

    def _file(self, number: int) -> Path:
        return self._folder / f"runtime-{number}.yaml"

    def _launch(self, number: int) -> None:
        command = [VMSHEPHERD, "serve", "runtime", "-c", str(self._file(number))]
        log = self._folder / f"runtime-{number}.log"
        self._daemons[number] = Daemon([*self._before, *command], log=log, cwd=self._folder)

    def _await(self, number: int) -> None:
        daemon = self._daemons[number]
        await_listening(self._ports[number], lambda: daemon.is_alive, daemon.said)

    def _end(self) -> None:
        for daemon in self._daemons.values():
            daemon.kill_with_all()
