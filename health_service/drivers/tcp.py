"""Check `tcp`: a connection can be made; with `expect`, the VM says so many words on it.

What the VM says is looked at up to 64 KiB, and for the exact text: no patterns.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from health_service.addresses import AddressOptions, url_host
from health_service.connecting import connect
from health_service.domain import Aim, Reason
from health_service.options import Port, Timeout
from health_service.port import Probe, Tools, Trait
from health_service.probing import Unfit, probe_each
from vmshepherd_kit.settings import Settings

_MOST_BYTES: Final = 64 * 1024
_CHUNK: Final = 16 * 1024


class TcpOptions(AddressOptions):
    """Options of the check `tcp`."""

    port: Port = Field(description="Port to connect to.")
    timeout: Timeout = Field(
        default=timedelta(seconds=1),
        description="For the connection; and again for what it says, if something is expected.",
        json_schema_extra={"default": 1},
    )
    send: Annotated[str, Field(max_length=4096)] = Field(
        default="", description="Text to send first, as it stands."
    )
    expect: Annotated[str, Field(max_length=4096)] = Field(
        default="", description="Text that must come within the first 64 KiB."
    )


class TcpCheck:
    """Connects, and listens for what is expected."""

    summary: ClassVar[str] = "The port accepts a connection and, if told to, says what is expected."
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.NETWORK})
    options: ClassVar[type[Settings]] = TcpOptions

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def prepare(self, options: TcpOptions) -> Probe:
        """A probe with these options."""
        return partial(probe_each, _Attempts(options), self._tools)

    def control_options(self, port: int) -> Mapping[str, Any] | None:
        """A bare connection."""
        return {"port": port}

    async def close(self) -> None:
        """Nothing is held."""


class _Attempts:
    def __init__(self, options: TcpOptions) -> None:
        self._options = options
        self._talks = bool(options.send or options.expect)
        self.patience = options.timeout * (2 if self._talks else 1)

    def label(self, aim: Aim) -> str:
        return f"tcp {url_host(aim.address)}:{self._options.port}"

    async def attempt(self, aim: Aim) -> str:
        with await connect(aim.address, self._options.port, self._options.timeout) as sock:
            if not self._talks:
                return "connected"
            async with asyncio.timeout(self._options.timeout.total_seconds()):
                return await self._talk(sock)

    async def _talk(self, sock: socket.socket) -> str:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, self._options.send.encode())
        wanted, said = self._options.expect.encode(), bytearray()
        while wanted not in said:
            if len(said) >= _MOST_BYTES:
                raise Unfit(Reason.BODY, "the expected text is not within the first 64 KiB")
            chunk = await loop.sock_recv(sock, _CHUNK)
            if not chunk:
                raise Unfit(Reason.BODY, "it hung up without the expected text")
            said += chunk
        return "answered as expected"
