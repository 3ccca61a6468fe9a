"""Loopback addresses for VMs: one each, never the ones that people use themselves.

Each root begins at another place of 127.0.0.0/8, so that two suites of one machine rarely meet;
where they do, whoever listens there already keeps the address.
"""

from __future__ import annotations

import errno
import hashlib
import socket
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from vmshepherd_kit.errors import NoCapacity

# 127.1.0.0 to 127.254.255.255: 127.0.x.y is where resolvers and other daemons of the machine live.
_FIRST: Final = int(IPv4Address("127.1.0.0"))
_COUNT: Final = int(IPv4Address("127.255.0.0")) - _FIRST
_TRIES: Final = 4096


class Addresses:
    """The addresses of one root's VMs."""

    def __init__(self, root: Path, port: int) -> None:
        digest = hashlib.sha256(str(root).encode()).digest()
        # Beginnings lie 256 addresses apart, so that near misses do not overlap either.
        self._next = int.from_bytes(digest[:4]) % (_COUNT // 256) * 256
        self._port = port
        self._taken: set[str] = set()

    def take(self) -> str:
        """An address that nobody has and nobody listens on.  NoCapacity."""
        for _ in range(_TRIES):
            address = str(IPv4Address(_FIRST + self._next))
            self._next = (self._next + 1) % _COUNT
            is_odd = address.endswith((".0", ".255"))
            if not is_odd and address not in self._taken and _is_free(address, self._port):
                self._taken.add(address)
                return address
        raise NoCapacity(f"no loopback address has port {self._port} free")

    def keep(self, address: str) -> None:
        """A VM that was found has it."""
        self._taken.add(address)

    def give_back(self, address: str) -> None:
        """Its VM is gone."""
        self._taken.discard(address)


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                return False
            raise NoCapacity(f"cannot bind {address}:{port}: {e.strerror}") from e
    return True
