"""Ports for servers of tests: who needs some takes the next that are free.

Workers of one run never meet, for a port is also free while the server that has it is restarted,
or as long as it starts. Runs side by side begin at different places.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

_HOST = "127.0.0.1"
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def free(first: int, last: int) -> Iterator[int]:
    """Ports from `first` up to `last` on which nobody listens, without end; each once a round."""
    beginning = first + os.getpid() * 101 % (last - first)
    ports = (*range(beginning, last), *range(first, beginning))
    ours = [port for port in ports if port % _WORKERS == _WORKER]
    return (port for port in itertools.cycle(ours) if is_free(port))


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
