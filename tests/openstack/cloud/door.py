"""The way to the database of one cell: closed, by ending this process, the cell is down for Nova.

    python3 door.py PORT DATABASE_PORT

Nova knows each database by an address that it reads once, at its start; so the address stays, and
what stands behind it goes.  Suspended in place of ended, the database is silent rather than gone.
"""

from __future__ import annotations

import asyncio
import sys


class Side(asyncio.Protocol):
    """One side of a connection: what comes in goes out at the other."""

    def __init__(self, other: Side | None = None, port: int = 0) -> None:
        self.other = other
        self.transport: asyncio.Transport | None = None
        self._port = port
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.other is None:
            self.other = Side(self)
            self._opening = asyncio.ensure_future(self._open(self.other))
        elif self.other._early:
            transport.write(self.other._early)

    async def _open(self, other: Side) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: other, "127.0.0.1", self._port)
        except OSError:
            self._close()

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        if self.other.transport is None:
            self._early += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other._close()

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()


async def main(port: int, database_port: int) -> None:
    """Stand open until ended."""
    loop = asyncio.get_running_loop()
    door = await loop.create_server(lambda: Side(port=database_port), "127.0.0.1", port)
    await door.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
