"""gRPC without a wire: channels between simulated processes, which serialise every message.

What a stub or `vmshepherd_kit.dial` sees is the shape of a grpc.aio.Channel; what a servicer sees
is its context, behind the very interceptors of a real server. Between them are latencies, losses,
cut links, late deliveries and deadlines. Of services it knows which requests touch VMs, no more.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import Context as Variables
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

import grpc

from vmshepherd_kit import dial

from .loop import Host, Kernel
from .trace import Trace

# A connection over which nothing comes is given up after keepalive's time and its time-out.
KEEPALIVE = 40.0
# The channel's retries on UNAVAILABLE: attempts, first pause, longest pause.
ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE = 4, 0.1, 1.0
# Methods of iaas_service that touch VMs which exist, and where their requests name them.
_TOUCHED = {"TerminateVms": "terminations", "RebootVms": "reboots", "RebuildVms": "rebuilds"}
# Two messages of one stream never arrive at the same moment, for then either might be first.
_APART = 1e-6
# What a stopped or crashed server's peer is told.
_REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:1: refused"


@dataclass(frozen=True)
class Caller:
    """Who made the call that is being served, and with which request."""

    host: Host
    method: str
    raw: bytes
    parse: Callable[[bytes], Any]
    sent: float
    """When it was sent."""
    left: float | None
    """How long its sender then was ready to wait."""

    @property
    def process(self) -> str:
        """Its name."""
        return self.host.name

    @cached_property
    def request(self) -> Any:
        """The request, read when somebody asks for it."""
        return self.parse(self.raw)

    @property
    def mutations(self) -> Sequence[Any]:
        """What it asks to be done to VMs that exist."""
        touched = _TOUCHED.get(self.method)
        return getattr(self.request, touched) if touched else ()

    def mutation(self, vm_id: str) -> Any:
        """What it asks to be done to this VM, or None."""
        return next((each for each in self.mutations if each.vm_id == vm_id), None)


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


@dataclass
class Weather:
    """How bad the network is at present."""

    loses: float = 0.0
    """Probability that a request, or an answer, never arrives."""
    delays: float = 0.0
    """Probability that a request arrives up to 90 s late."""
    cut: set[tuple[str, str]] = field(default_factory=set)
    """Links over which nothing goes, from one process to another."""


class Network:
    """All channels and servers of one simulation."""

    def __init__(self, kernel: Kernel, trace: Trace, seed: int) -> None:
        self.kernel = kernel
        self.trace = trace
        self.weather = Weather()
        self.servers: dict[str, Server] = {}
        self.watchers: list[Callable[[Caller], None]] = []
        self.calls = 0
        self._random = random.Random(seed)

    def latency(self) -> float:
        """One way: milliseconds, seldom more."""
        if self._random.random() < 0.01:
            return self._random.uniform(0.05, 0.8)
        return self._random.uniform(0.0003, 0.004)

    def is_cut(self, a: str, b: str) -> bool:
        """Whether nothing goes from one to the other."""
        return (a, b) in self.weather.cut

    def request_delay(self) -> float:
        """How long a request travels: seldom for longer than anybody waits."""
        if self.weather.delays and self._random.random() < self.weather.delays:
            return self._random.uniform(5.0, 90.0)
        return self.latency()

    def is_lost(self) -> bool:
        """Whether this message never arrives."""
        return bool(self.weather.loses) and self._random.random() < self.weather.loses

    def jitter(self) -> float:
        """A factor around 1."""
        return self._random.uniform(0.8, 1.2)


class Channel:
    """What a stub takes: the way of one process to one address."""

    def __init__(
        self, network: Network, client: Host, address: str, *, once: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.network = network
        self.client = client
        self.address = address
        self._once = {f"/{service}/{method}" for service, method in once}

    def unary_unary(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> UnaryUnary:
        """One request, one answer."""
        attempts = 1 if path in self._once else ATTEMPTS
        return UnaryUnary(self, path, request_serializer, response_deserializer, attempts)

    def unary_stream(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Callable[..., StreamCall]:
        """One request, a stream of answers."""

        def call(request: Any, timeout: float | None = None, **_: Any) -> StreamCall:
            raw = request_serializer(request)
            return StreamCall(self, path, raw, response_deserializer, timeout)

        # What `dial` names the method by.
        call._method = path.encode()  # type: ignore[attr-defined]
        return call


class UnaryUnary:
    """A method of a stub."""

    def __init__(
        self, channel: Channel, path: str, serialize: Any, deserialize: Any, attempts: int
    ) -> None:
        self._channel = channel
        self._method = path.encode()
        self._path = path
        self._serialize = serialize
        self._deserialize = deserialize
        self._attempts = attempts

    async def __call__(
        self,
        request: Any,
        timeout: float | None = None,  # noqa: ASYNC109  the shape of gRPC's own
        **_: Any,
    ) -> Any:
        """The answer; AioRpcError when there is none."""
        own = dial._DEADLINE if timeout is None else timedelta(seconds=timeout)
        raw, loop = self._serialize(request), self._channel.client
        ends = loop.time() + dial._clamped(own).total_seconds()
        attempt = 0
        while True:
            attempt += 1
            answer = await self._attempt(raw, ends - loop.time())
            if isinstance(answer, bytes):
                return self._deserialize(answer)
            pause = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE)
            pause *= self._channel.network.jitter()
            is_over = attempt == self._attempts or loop.time() + pause >= ends
            if answer.code() is not grpc.StatusCode.UNAVAILABLE or is_over:
                raise answer
            await asyncio.sleep(pause)

    async def _attempt(self, raw: bytes, left: float) -> bytes | grpc.aio.AioRpcError:
        if left <= 0:
            return _error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        loop = self._channel.client
        answer: asyncio.Future[Any] = loop.create_future()
        call = UnaryCall(self._channel, self._path, raw, left, answer)
        alarm = loop.call_later(left, call.expire)
        call.send()
        try:
            outcome: bytes | grpc.aio.AioRpcError = await answer
            return outcome
        except asyncio.CancelledError:
            call.abandon()
            raise
        finally:
            alarm.cancel()


class UnaryCall:
    """One request on its way, being served, or on its way back."""

    def __init__(
        self,
        channel: Channel,
        path: str,
        raw: bytes,
        left: float,
        answer: asyncio.Future[Any],
    ) -> None:
        self._network = channel.network
        self._client = channel.client
        self._address = channel.address
        self._path = path
        self._raw = raw
        self._left = left
        self._answer = answer
        self._sent = channel.network.kernel.now
        self._serving: Serving | None = None

    def send(self) -> None:
        """Let it travel."""
        net = self._network
        net.calls += 1
        server = net.servers.get(self._address)
        if net.is_cut(self._client.name, self._address) or net.is_lost():
            return
        net.kernel.call_later(net.request_delay(), lambda: self._arrive(server))

    def expire(self) -> None:
        """The caller's time is over; what was delivered runs on to its own deadline."""
        self._settle(_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def abandon(self) -> None:
        """The caller wants no answer any more, and says so if it can."""
        net = self._network
        if self._serving and not net.is_cut(self._client.name, self._address):
            net.kernel.call_later(net.latency(), self._serving.cancel)

    def _arrive(self, server: Server | None) -> None:
        net = self._network
        if server is None or server.host.is_dead or net.servers.get(self._address) is not server:
            self._back(_error(grpc.StatusCode.UNAVAILABLE, _REFUSED))
            return
        net.trace.mark(net.kernel.now, f"{self._client.name} {self._path}")
        self._serving = server.serve(
            self._client, self._path, self._raw, self._left, self._back, sent=self._sent
        )

    def _back(self, answer: bytes | grpc.aio.AioRpcError) -> None:
        net = self._network
        if net.is_cut(self._address, self._client.name) or net.is_lost():
            return
        net.kernel.call_later(net.latency(), lambda: self._deliver(answer))

    def _deliver(self, answer: bytes | grpc.aio.AioRpcError) -> None:
        if not self._client.is_dead:
            self._settle(answer)

    def _settle(self, answer: bytes | grpc.aio.AioRpcError) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)


class StreamCall:
    """A stream of answers, in order, as the client reads it."""

    def __init__(
        self, channel: Channel, path: str, raw: bytes, deserialize: Any, timeout: float | None
    ) -> None:
        self._network = channel.network
        self._client = channel.client
        self._address = channel.address
        self._path = path
        self._raw = raw
        self._deserialize = deserialize
        self._timeout = timeout
        self._arrived: deque[Any] = deque()
        self._news: asyncio.Future[None] | None = None
        self._serving: Serving | None = None
        self._last = 0.0
        self._is_over = False
        self._is_stalled = False
        self._alarm = timeout is not None and self._client.call_later(timeout, self._expire)
        self._send()

    def cancel(self) -> bool:
        """Read no more, and tell the server if that can be done."""
        if self._alarm:
            self._alarm.cancel()
        if not self._is_over:
            self._is_over = True
            net = self._network
            if self._serving and not net.is_cut(self._client.name, self._address):
                net.kernel.call_later(net.latency(), self._serving.cancel)
        return True

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._read()

    async def _read(self) -> AsyncIterator[Any]:
        while True:
            while not self._arrived:
                self._news = self._client.create_future()
                await self._news
            item = self._arrived.popleft()
            if isinstance(item, grpc.aio.AioRpcError):
                raise item
            if item is None:
                return
            yield self._deserialize(item)

    def _send(self) -> None:
        net = self._network
        net.calls += 1
        server = net.servers.get(self._address)
        if net.is_cut(self._client.name, self._address) or net.is_lost():
            self._break_later()
            return
        net.kernel.call_later(net.latency(), lambda: self._arrive(server))

    def _arrive(self, server: Server | None) -> None:
        net = self._network
        if server is None or server.host.is_dead or net.servers.get(self._address) is not server:
            self._deliver(_error(grpc.StatusCode.UNAVAILABLE, _REFUSED))
            return
        net.trace.mark(net.kernel.now, f"{self._client.name} {self._path}")
        self._serving = server.serve(
            self._client,
            self._path,
            self._raw,
            self._timeout,
            self._end,
            sent=net.kernel.now,
            write=self._write,
        )
        server.streams[self] = None

    def _write(self, message: bytes) -> None:
        net = self._network
        if self._is_over:
            return
        if self._is_stalled or net.is_cut(self._address, self._client.name) or net.is_lost():
            self._break_later()
            return
        self._deliver(message)

    def _end(self, answer: bytes | grpc.aio.AioRpcError) -> None:
        if not self._is_stalled:
            self._deliver(answer if isinstance(answer, grpc.aio.AioRpcError) else None)

    def _deliver(self, item: Any) -> None:
        """In order, whatever the latencies."""
        net = self._network
        self._last = max(self._last + _APART, net.kernel.now + net.latency())
        net.kernel.call_at(self._last, lambda: self._take(item))

    def _take(self, item: Any) -> None:
        if not self._is_over and not self._client.is_dead:
            self._client.call_soon(self._put, item)

    def _put(self, item: Any) -> None:
        if self._is_over:
            return
        self._is_over = not isinstance(item, bytes)
        self._arrived.append(item)
        if self._news and not self._news.done():
            self._news.set_result(None)

    def _expire(self) -> None:
        self._put(_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _break_later(self) -> None:
        """Nothing more gets through: a connection has no gaps, it stands still and then breaks."""
        if self._is_stalled:
            return
        self._is_stalled = True
        self._network.kernel.call_later(KEEPALIVE, self.broken)

    def broken(self) -> None:
        """The connection is found dead, at both ends."""
        if self._serving:
            self._serving.cancel()
        self._take(_error(grpc.StatusCode.UNAVAILABLE, "connection lost; last error: UNKNOWN"))


class Server:
    """What one incarnation of a process serves."""

    def __init__(self, network: Network, host: Host, interceptors: Sequence[Any]) -> None:
        self.host = host
        # In the order of their coming: a set would have another one in every run.
        self.streams: dict[StreamCall, None] = {}
        self._tasks: dict[asyncio.Task[None], Serving] = {}
        self._network = network
        self._interceptors = list(interceptors)
        self._handlers: dict[str, Any] = {}
        self._wrapped: dict[str, Any] = {}

    # What generated code asks of a grpc.aio.Server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The methods come by `add_registered_method_handlers` too."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """The methods of one service."""
        for method, handler in handlers.items():
            self._handlers[f"/{service}/{method}"] = handler

    # Serving

    async def wrap(self) -> None:
        """Put the interceptors around every method, as a server does at every call."""
        for path in self._handlers:
            self._wrapped[path] = await self._intercepted(path, 0)

    async def _intercepted(self, path: str, place: int) -> Any:
        if place == len(self._interceptors):
            return self._handlers[path]

        async def go_on(_: Any) -> Any:
            return await self._intercepted(path, place + 1)

        details = _Details(path)
        return await self._interceptors[place].intercept_service(go_on, details)

    def serve(
        self,
        client: Host,
        path: str,
        raw: bytes,
        left: float | None,
        back: Callable[[Any], None],
        *,
        sent: float,
        write: Callable[[bytes], None] | None = None,
    ) -> Serving:
        """Run the handler in the process of this server."""
        serving = Serving(self.host, client.name, left, write)
        handler = self._wrapped.get(path)
        if handler is None:
            back(_error(grpc.StatusCode.UNIMPLEMENTED, path))
            return serving
        parse = self._handlers[path].request_deserializer
        caller = Caller(client, path.rpartition("/")[2], raw, parse, sent, left)
        task = serving.begin(self._handle(serving, handler, caller, back))
        self._tasks[task] = serving
        return serving

    async def cancel_all(self) -> None:
        """End whatever is still being served."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(
        self, serving: Serving, handler: Any, caller: Caller, back: Callable[[Any], None]
    ) -> None:
        CALLER.set(caller)
        for watch in self._network.watchers:
            watch(caller)
        serving.serialize = handler.response_serializer
        parse = handler.request_deserializer
        request = caller.raw if parse is None else parse(caller.raw)
        try:
            behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
            answer = await behaviour(request, serving)
        except _Aborted:
            back(serving.failure())
        except asyncio.CancelledError:
            # As gRPC: the deadline is over, or the client has gone.
            back(_error(grpc.StatusCode.CANCELLED, "cancelled"))
            raise
        else:
            back(b"" if handler.response_streaming else serving.serialize(answer))
        finally:
            serving.calm()
            self._tasks.pop(serving.task)


class Serving:
    """One call being served; to the servicer, its context."""

    def __init__(
        self,
        host: Host,
        client: str,
        left: float | None,
        write: Callable[[bytes], None] | None,
    ) -> None:
        self._host = host
        self._client = client
        self._ends = None if left is None else host.time() + left
        self._write = write
        self.task: Any = None
        self._alarm: asyncio.TimerHandle | None = None
        self._status: Any = None
        self.serialize: Callable[[Any], bytes] = bytes

    def begin(self, work: Any) -> asyncio.Task[None]:
        """Run it, to its deadline at most."""
        task = self.task = self._host.create_task(work, context=Variables())
        if self._ends is not None:
            self._alarm = self._host.call_at(self._ends, task.cancel)
        return task

    def cancel(self) -> None:
        """The client has gone."""
        if self.task and not self._host.is_dead:
            self._host.call_soon(self.task.cancel)

    def calm(self) -> None:
        """It has ended: its deadline concerns nobody."""
        if self._alarm:
            self._alarm.cancel()

    def failure(self) -> grpc.aio.AioRpcError:
        """What it was aborted with."""
        status = self._status
        trailers = grpc.aio.Metadata(*status.trailing_metadata)
        return _error(status.code, status.details, trailers)

    # What servicers ask

    def time_remaining(self) -> float | None:
        """Seconds until the deadline."""
        return None if self._ends is None else max(0.0, self._ends - self._host.time())

    def peer(self) -> str:
        """Whose connection it is."""
        return self._client

    async def write(self, message: Any) -> None:
        """One message of a stream."""
        if self._write:
            self._write(self.serialize(message))

    async def abort_with_status(self, status: Any) -> None:
        """End the call with this status."""
        self._status = status
        raise _Aborted


class _Aborted(grpc.aio.BaseError):
    """How a handler is left."""


@dataclass(frozen=True, slots=True)
class _Details:
    method: str


def _error(code: Any, details: str, trailers: Any = None) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, trailers or nothing, details=details)
