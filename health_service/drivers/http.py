"""Check `http`: one HTTP/1.1 request, judged by its status and, if told to, by its body.

The URL is built from the vetted address and parsed parts, never from text of the caller; redirects
are never followed, a 302 is a status like any other. At most 64 KiB of headers and 64 KiB of body
are read, bodies are asked for uncompressed and taken as they come, and `body` is an exact text:
a pattern could keep the prober busy for ever. Options: `http_options`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final, cast

import h11

from health_service.addresses import url_host
from health_service.connecting import connect
from health_service.domain import Aim, Reason
from health_service.drivers.http_options import HttpOptions
from health_service.drivers.http_tls import Contexts
from health_service.port import Probe, Tools, Trait
from health_service.probing import Unfit, probe_each
from vmshepherd_kit.settings import Settings

_MOST_HEADERS: Final = 64 * 1024
_MOST_BODY: Final = 64 * 1024
# Headers, body, and the interim answers and chunk lines between them.
_MOST_BYTES: Final = 256 * 1024
# Of what the library says about a bad answer, which may quote it.
_MOST_TOLD: Final = 200
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class HttpCheck:
    """Asks, and compares the answer with what is expected."""

    summary: ClassVar[str] = "An HTTP request is answered with the expected status and body."
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.NETWORK})
    options: ClassVar[type[Settings]] = HttpOptions

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._contexts = Contexts(tools.files)

    async def prepare(self, options: HttpOptions) -> Probe:
        """A probe with these options; BadRequest when a file that they name cannot be used."""
        context = await self._contexts.of(options.tls) if options.is_tls else None
        return partial(probe_each, _Attempts(options, context), self._tools)

    def control_options(self, port: int) -> Mapping[str, Any] | None:
        """A plain request."""
        return {"port": port}

    async def close(self) -> None:
        """Nothing is held."""


class _Attempts:
    def __init__(self, options: HttpOptions, context: ssl.SSLContext | None) -> None:
        self._options = options
        self._context = context
        self._scheme = "https" if context else "http"
        self._port = options.port or _DEFAULT_PORTS[self._scheme]
        self._server_name = options.tls.server_name if options.tls else None
        self.patience = options.conn_timeout + options.read_timeout

    def label(self, aim: Aim) -> str:
        where = f"{self._scheme}://{url_host(aim.address)}:{self._port}{self._options.path}"
        return f"{self._options.method} {where}"

    async def attempt(self, aim: Aim) -> str:
        sock = await connect(aim.address, self._port, self._options.conn_timeout)
        loop = asyncio.get_running_loop()
        exchange = _Exchange(self._request(aim), self._options, loop.create_future())
        try:
            async with asyncio.timeout(self._options.read_timeout.total_seconds()):
                await loop.create_connection(
                    lambda: exchange,
                    sock=sock,
                    ssl=self._context,
                    server_hostname=self._tls_name(aim),
                )
                return await exchange.answer
        finally:
            exchange.abort()

    def _request(self, aim: Aim) -> h11.Request:
        options = self._options
        default = self._server_name or f"{url_host(aim.address)}:{self._port}"
        defaults = {
            "Host": options.host or default,
            "User-Agent": "vmshepherd",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **({} if options.method in {"GET", "HEAD"} else {"Content-Length": "0"}),
        }
        ours = [(name, value) for name, value in defaults.items() if not options.has_header(name)]
        fields = [*ours, *options.headers.items(), ("Connection", "close")]
        headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        return h11.Request(method=options.method, target=options.path, headers=headers)

    def _tls_name(self, aim: Aim) -> str | None:
        return (self._server_name or str(aim.address)) if self._context else None


class _Exchange(asyncio.Protocol):
    """One request and what comes back, until that is enough for a judgement."""

    def __init__(
        self, request: h11.Request, options: HttpOptions, answer: asyncio.Future[str]
    ) -> None:
        self.answer = answer
        self._request = request
        self._options = options
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEADERS)
        self._transport: asyncio.Transport | None = None
        self._received = 0
        self._status = 0
        self._body = bytearray()

    def abort(self) -> None:
        """Drop the connection, and what may still become of the answer."""
        if self._transport:
            self._transport.abort()
        if self.answer.done() and not self.answer.cancelled():
            self.answer.exception()  # seen, though nobody waits for it any more
        self.answer.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        request = self._connection.send(self._request) or b""
        self._transport.write(request + (self._connection.send(h11.EndOfMessage()) or b""))

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        self._take(data)

    def eof_received(self) -> None:
        if self._status:
            self._take(b"")
        else:
            self._fail(Unfit(Reason.RESET, "it hung up without an answer"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("it hung up before the answer was whole"))

    def _take(self, data: bytes) -> None:
        if self.answer.done():
            return
        try:
            self._connection.receive_data(data)
            while not self.answer.done() and self._next():
                pass
        except h11.RemoteProtocolError as e:
            self._fail(Unfit(Reason.PROTOCOL, f"no proper HTTP answer: {str(e)[:_MOST_TOLD]}"))
        if self._received > _MOST_BYTES:
            self._fail(Unfit(Reason.PROTOCOL, "the answer does not end"))

    def _next(self) -> bool:
        """Take one event; whether there may be another one."""
        event = self._connection.next_event()
        if isinstance(event, h11.Response):
            self._take_status(event.status_code)
        elif isinstance(event, h11.Data):
            self._take_body(event.data)
        elif isinstance(event, h11.EndOfMessage):
            self._fail(Unfit(Reason.BODY, f"{self._status}, and the body lacks the expected text"))
        return isinstance(event, h11.Response | h11.InformationalResponse | h11.Data)

    def _take_status(self, status: int) -> None:
        self._status = status
        if not self._options.is_expected(status):
            expected = self._options.expected_text
            self._fail(Unfit(Reason.STATUS, f"{status}, expected {expected}"))
        elif not self._options.texts:
            self._succeed()

    def _take_body(self, data: bytes) -> None:
        self._body += data[: _MOST_BODY - len(self._body)]
        if all(text in self._body for text in self._options.texts):
            self._succeed()
        elif len(self._body) >= _MOST_BODY:
            self._fail(
                Unfit(Reason.BODY, f"{self._status}, and no expected text within 64 KiB of body")
            )

    def _succeed(self) -> None:
        if not self.answer.done():
            self.answer.set_result(str(self._status))

    def _fail(self, why: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(why)
