"""One TCP connection of a prober, and how it ends.

It is closed by a reset (SO_LINGER 0): a plain close leaves an entry for minutes in TIME_WAIT here
and in the connection tables of the firewalls on the way, which a few thousand probes a second
fill up, to the harm of everybody else.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from datetime import timedelta
from typing import Final

from health_service.domain import Address
from health_service.probing import NoAnswer

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


async def connect(address: Address | None, port: int, patience: timedelta) -> socket.socket:
    """A connected, non-blocking socket, the caller's to close; NoAnswer or OSError otherwise."""
    family = socket.AF_INET6 if address and address.version == 6 else socket.AF_INET  # noqa: PLR2004
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        async with asyncio.timeout(patience.total_seconds()):
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
        _refuse_self(sock)
    except TimeoutError as e:
        sock.close()
        raise NoAnswer from e
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse_self(sock: socket.socket) -> None:
    """On loopback, a connection to a free port may meet itself: TCP's simultaneous open."""
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
