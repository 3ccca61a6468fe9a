"""The prober's test of itself, before and after each batch: can it reach anything at all?

A listener of our own on loopback is probed the way the targets are; it fails when file
descriptors, memory or the loop's time are used up, or the network is gone. Targets that the
operator names (a gateway in the VMs' network, say) prove the way there: one that accepts a
connection is enough. A control that fails makes verdicts void; it never makes one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Protocol, cast

from health_service.domain import Aim, Reason, Result, TargetId, Verdict
from health_service.port import Check
from vmshepherd_kit import settings

_LOOPBACK: Final = "127.0.0.1"
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_MOST_REQUEST: Final = 64 * 1024


@dataclass(frozen=True)
class Place:
    """An address and a port that should accept connections whenever our network works."""

    address: str
    port: int

    def __str__(self) -> str:
        """The two, for people."""
        return f"{self.address} port {self.port}"


class Control(Protocol):
    """What the prober asks about itself."""

    # Whether the way to the VMs is proved by places that the operator named.
    proves_network: bool

    async def why_failed(self, driver: str) -> str:
        """Why the control fails for probes by the check of this name; "" when it passes."""
        ...


class OwnControl:
    """The listener on loopback, and the places that the operator named.

    `tcp` makes the bare connections. The checks given here are not those that probe targets: they
    have a pace of their own, so that a full batch does not keep the control waiting.
    """

    def __init__(
        self, port: int, checks: Mapping[str, Check], *, tcp: Check, places: Sequence[Place]
    ) -> None:
        self._port = port
        self._checks = checks
        self._tcp = tcp
        self._places = places
        self.proves_network = bool(places)

    async def why_failed(self, driver: str) -> str:
        """See `Control`."""
        own, *others = await asyncio.gather(
            self._own(self._checks[driver]), *(self._connect(place) for place in self._places)
        )
        if own.verdict is not Verdict.HEALTHY:
            return f"the prober cannot reach its own listener: {own.message}"
        if others and not any(result.verdict is Verdict.HEALTHY for result in others):
            return "no control target answers: " + "; ".join(r.message for r in others)
        return ""

    async def _own(self, check: Check) -> Result:
        options = check.control_options(self._port)
        if options is None:
            return await self._connect(Place(_LOOPBACK, self._port))
        return await _once(check, options, _LOOPBACK)

    async def _connect(self, place: Place) -> Result:
        return await _once(self._tcp, {"port": place.port}, place.address)


async def _once(check: Check, raw: Mapping[str, Any], address: str) -> Result:
    options = settings.parse(raw, check.options)
    probe = await check.prepare(options)
    results: list[Result] = []
    aim = Aim(TargetId("control"), ip_address(address))
    await probe([aim], results.append)
    unsaid = Result(aim.target_id, Verdict.UNKNOWN, Reason.BUG, "the check said nothing about it")
    return results[0] if results else unsaid


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """The port of a listener on loopback that answers 200 to anything, within the block."""
    server = await asyncio.get_running_loop().create_server(_Answers, _LOOPBACK, 0, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class _Answers(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._request = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._request += data
        if self._transport and b"\r\n\r\n" in self._request:
            self._transport.write(_ANSWER)
            self._transport.close()
        elif self._transport and len(self._request) > _MOST_REQUEST:
            self._transport.abort()
