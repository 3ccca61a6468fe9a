"""One port of the proxy: HTTP/1.1 in, HTTP/1.1 out, and a fault in between.

Knows nothing of OpenStack but that its answers name its addresses, and that the answer to
`POST /servers` names a server.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import h11

from tests.openstack.cloud.place import HOST
from tests.openstack.faults import Answer, Fault, Hangup, Silence

_OWN: Final = {b"connection", b"content-length", b"transfer-encoding", b"host", b"keep-alive"}
_CREATE: Final = re.compile(r"/v2\.1/servers")


@dataclass
class Exchange:
    """A request on its way."""

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    # Servers that were made through the proxy, the newest last.
    newest: list[str] = field(default_factory=list)


class Gateway:
    """Listens for one API; `judge` is told each request, and says what becomes of it."""

    def __init__(self, target: int, judge: Callable[[Exchange], Fault]) -> None:
        self.port = 0
        # What of an answer is replaced by what.
        self.addresses: Mapping[bytes, bytes] = {}
        self._target = target
        self._judge = judge
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        """Listen; on which port."""
        self._server = await asyncio.start_server(self._accept, HOST, 0, limit=2**24)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def close(self) -> None:
        """End all connections."""
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(ConnectionError, Hangup, h11.RemoteProtocolError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            # What was written still goes out.
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Request after request, as long as the client wants."""
        connection = h11.Connection(h11.SERVER)
        while (exchange := await _request(connection, reader)) is not None:
            try:
                answer = await self._answer(exchange, self._judge(exchange))
            except Silence:
                # Until the client has had enough.
                await reader.read(1)
                return
            await _send(connection, writer, answer, exchange.method)
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _answer(self, exchange: Exchange, fault: Fault) -> Answer:
        await asyncio.sleep(fault.seconds)
        if not fault.forwarded:
            return fault.instead()
        answer = await self._ask(exchange)
        _remember(exchange, answer)
        return fault.after(self._rewritten(answer), newest=exchange.newest)

    async def _ask(self, exchange: Exchange) -> Answer:
        """What the cloud says to it.  A cloud that is away hangs up."""
        reader, writer = await asyncio.open_connection(HOST, self._target)
        try:
            connection = h11.Connection(h11.CLIENT)
            host = (b"Host", f"{HOST}:{self._target}".encode())
            length = (b"Content-Length", str(len(exchange.body)).encode())
            kept = [(name, value) for name, value in exchange.headers if name not in _OWN]
            headers = [host, length, (b"Connection", b"close"), *kept]
            request = h11.Request(method=exchange.method, target=exchange.path, headers=headers)
            sent = [request, h11.Data(data=exchange.body), h11.EndOfMessage()]
            writer.write(b"".join(connection.send(event) or b"" for event in sent))
            return await _response(connection, reader)
        finally:
            writer.transport.abort()

    def _rewritten(self, answer: Answer) -> Answer:
        """The cloud's own addresses become the proxy's."""
        headers = [(name, self._mapped(value.encode()).decode()) for name, value in answer.headers]
        return replace(answer, headers=headers, body=self._mapped(answer.body))

    def _mapped(self, text: bytes) -> bytes:
        for theirs, ours in self.addresses.items():
            text = text.replace(theirs, ours)
        return text


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> Exchange | None:
    """The next one, whole; None: there is none any more."""
    head = await _event(connection, reader)
    if not isinstance(head, h11.Request):
        return None
    body = bytearray()
    while isinstance(event := await _event(connection, reader), h11.Data):
        body += event.data
    return Exchange(head.method.decode(), head.target.decode(), list(head.headers), bytes(body))


async def _response(connection: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    head = await _event(connection, reader)
    if not isinstance(head, h11.Response):
        raise Hangup
    body = bytearray()
    while isinstance(event := await _event(connection, reader), h11.Data):
        body += event.data
    headers = [(name.decode(), value.decode()) for name, value in head.headers if name not in _OWN]
    return Answer(status=head.status_code, headers=headers, body=bytes(body))


async def _event(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(2**16))
        elif isinstance(event, h11.Event):
            return event
        else:
            raise Hangup


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, method: str
) -> None:
    length = ("Content-Length", str(len(answer.body)))
    has_body = answer.status not in {204, 304}
    headers = [*answer.headers, *([length] if has_body else [])]
    head = h11.Response(status_code=answer.status, headers=headers)
    writer.write(connection.send(head) or b"")
    if answer.cut_after is not None:
        writer.write(connection.send(h11.Data(data=answer.body[: answer.cut_after])) or b"")
        await writer.drain()
        raise Hangup
    if has_body and method != "HEAD":
        writer.write(connection.send(h11.Data(data=answer.body)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()


def _remember(exchange: Exchange, answer: Answer) -> None:
    """The server that was made, if one was."""
    made = exchange.method == "POST" and _CREATE.fullmatch(exchange.path) is not None
    if made and answer.status == 202:
        exchange.newest.append(json.loads(answer.body)["server"]["id"])
