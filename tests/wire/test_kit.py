"""The kit over real connections: what every server and every client of the suite can rely on."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)
from structlog.testing import capture_logs

from vmshepherd_kit import deadlines, dial, errors, health, serve, settings
from vmshepherd_kit.admission import Limits
from vmshepherd_kit.errors import ShepherdError, Violation
from vmshepherd_kit.testing import served

LOOPBACK = serve.Listen(address="127.0.0.1:0")
SHORT = timedelta(milliseconds=200)
LONG = timedelta(seconds=60)
LARGE = timedelta(hours=1)

Unary = Callable[[StringValue, Any], Awaitable[StringValue]]
Stream = Callable[[StringValue, Any], AsyncIterator[StringValue]]


def _echo_descriptor() -> Any:
    pool = descriptor_pool.Default()
    file = descriptor_pb2.FileDescriptorProto(
        name="kit_test/echo.proto",
        package="kit_test",
        dependency=["google/protobuf/wrappers.proto"],
        service=[descriptor_pb2.ServiceDescriptorProto(name="Echo")],
    )
    for name, asks, answers in [
        ("Once", False, False),
        ("Many", False, True),
        ("Collect", True, False),
        ("Talk", True, True),
    ]:
        file.service[0].method.add(
            name=name,
            input_type=".google.protobuf.StringValue",
            output_type=".google.protobuf.StringValue",
            client_streaming=asks,
            server_streaming=answers,
        )
    return pool.AddSerializedFile(file.SerializeToString()).services_by_name["Echo"]


ECHO = _echo_descriptor()


async def for_ever() -> StringValue:
    waiting: asyncio.Future[StringValue] = asyncio.get_running_loop().create_future()
    return await waiting


async def _answer(request: StringValue, _context: Any) -> StringValue:
    return request


async def _answer_many(request: StringValue, _context: Any) -> AsyncIterator[StringValue]:
    yield request
    await for_ever()


async def _collect(requests: AsyncIterator[StringValue], _context: Any) -> StringValue:
    return StringValue(value="".join([request.value async for request in requests]))


async def _talk(requests: AsyncIterator[StringValue], _context: Any) -> AsyncIterator[StringValue]:
    async for request in requests:
        yield request


def echo(once: Unary = _answer, many: Stream = _answer_many) -> serve.Mount:
    codec: dict[str, Any] = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Once": grpc.unary_unary_rpc_method_handler(once, **codec),
        "Many": grpc.unary_stream_rpc_method_handler(many, **codec),
        "Collect": grpc.stream_unary_rpc_method_handler(_collect, **codec),
        "Talk": grpc.stream_stream_rpc_method_handler(_talk, **codec),
    }

    def add(_servicer: object, server: grpc.aio.Server) -> None:
        handler = grpc.method_handlers_generic_handler(ECHO.full_name, handlers)
        server.add_generic_rpc_handlers((handler,))

    return serve.Mount(add=add, servicer=None, descriptor=ECHO)


def once(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        "/kit_test.Echo/Once",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )


def many(channel: grpc.aio.Channel) -> Any:
    return channel.unary_stream(
        "/kit_test.Echo/Many",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )


def health_stub(channel: grpc.aio.Channel) -> Any:
    return HealthStub(channel)


def raising(error: BaseException) -> Unary:
    async def handler(_request: StringValue, _context: Any) -> StringValue:
        raise error

    return handler


async def failure_of(handler: Unary) -> ShepherdError:
    async with served([echo(handler)]) as channel:
        with pytest.raises(ShepherdError) as caught:
            await dial.ask(once(channel), StringValue())
    return caught.value


# --- errors ---


async def test_an_error_arrives_as_it_was_raised() -> None:
    sent = errors.Throttled(
        "slow down",
        reason="API_LIMIT",
        retry_after=timedelta(seconds=1.5),
        violations=[Violation("vms[3].name", "is too long")],
        region="west",
    )
    got = await failure_of(raising(sent))
    assert type(got) is errors.Throttled
    assert (got.message, got.reason, got.facts) == ("slow down", "API_LIMIT", {"region": "west"})
    assert got.retry_after == timedelta(seconds=1.5)
    assert got.violations == (Violation("vms[3].name", "is too long"),)


async def test_the_text_of_a_bug_reaches_the_log_and_not_the_client() -> None:
    with capture_logs() as lines:
        got = await failure_of(raising(ValueError("password=hunter2")))
    assert isinstance(got, errors.Internal)
    assert "hunter2" not in got.message + str(got.facts)
    incidents = [line for line in lines if line["event"] == "call failed by a bug"]
    assert [line["incident"] for line in incidents] == [got.facts["incident"]]
    assert incidents[0]["exc_info"]


async def test_a_handler_that_cancels_itself_leaves_no_client_hanging() -> None:
    async with asyncio.timeout(20):
        got = await failure_of(raising(asyncio.CancelledError()))
    assert isinstance(got, errors.Internal)


async def test_a_cancelled_call_is_cancelled_at_the_server_without_an_incident() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_request: StringValue, _context: Any) -> StringValue:
        begun.set()
        try:
            return await for_ever()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with capture_logs() as lines:
        async with served([echo(wait)]) as channel:
            call = once(channel)(StringValue())
            await begun.wait()
            call.cancel()
            await cancelled.wait()
    assert not [line for line in lines if "bug" in line["event"]]


FINDINGS = [settings.Finding(f"presets.p{n}", "unknown key", "count") for n in range(2000)]


@pytest.mark.parametrize(
    "sent",
    [
        errors.Refused("x" * 100_000, reason="TOO_LONG", vm="y" * 50_000),
        errors.Refused("界" * 100_000, reason="TOO_LONG", vm="界" * 50_000),
        settings.Invalid(FINDINGS),
        errors.NotFound("a file named \udcff"),
    ],
    ids=["long", "long and foreign", "many findings", "no text at all"],
)
async def test_an_error_that_does_not_fit_the_trailers_arrives_cut(sent: ShepherdError) -> None:
    got = await failure_of(raising(sent))
    assert (got.code, got.reason) == (sent.code, sent.reason)
    assert got.message[:10] == sent.message[:10]


async def test_too_many_violations_for_trailers_do_not_cost_the_facts() -> None:
    violations = [Violation(f"vms[{n}]", "is wrong") for n in range(2000)]
    got = await failure_of(raising(errors.BadRequest("no", violations=violations, preset="web")))
    assert isinstance(got, errors.BadRequest)
    assert got.facts == {"preset": "web"}


@pytest.mark.parametrize("method", ["Once", "Many", "Collect", "Talk"])
async def test_bytes_that_are_no_message_are_the_callers_fault(method: str) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield b"\xff\xff"

    async with served([echo()]) as channel:
        raw: Any = channel
        path = f"/kit_test.Echo/{method}"
        calls: dict[str, Callable[[], Any]] = {
            "Once": lambda: raw.unary_unary(path)(b"\xff\xff"),
            "Many": lambda: raw.unary_stream(path)(b"\xff\xff").read(),
            "Collect": lambda: raw.stream_unary(path)(requests()),
            "Talk": lambda: raw.stream_stream(path)(requests()).read(),
        }
        with pytest.raises(grpc.aio.AioRpcError) as caught, capture_logs() as lines:
            await calls[method]()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not [line for line in lines if "exc_info" in line]


async def test_all_four_kinds_of_call_work_through_the_interceptors() -> None:
    async def words() -> AsyncIterator[StringValue]:
        for word in ("a", "b"):
            yield StringValue(value=word)

    codec: dict[str, Any] = {
        "request_serializer": StringValue.SerializeToString,
        "response_deserializer": StringValue.FromString,
    }
    async with served([echo()]) as channel:
        assert (await dial.ask(once(channel), StringValue(value="x"))).value == "x"
        assert (await anext(dial.listen(many(channel), StringValue(value="y")))).value == "y"
        collect = channel.stream_unary("/kit_test.Echo/Collect", **codec)
        assert (await collect(words())).value == "ab"
        talk = channel.stream_stream("/kit_test.Echo/Talk", **codec)
        assert [message.value async for message in talk(words())] == ["a", "b"]


async def test_a_request_larger_than_the_limit_is_refused_and_the_server_lives_on() -> None:
    async with served([echo()]) as channel:
        with pytest.raises(errors.Throttled):
            await dial.ask(once(channel), StringValue(value="x" * (5 * serve.MIB)))
        assert (await dial.ask(once(channel), StringValue(value="x"))).value == "x"


# --- deadlines and retries ---


async def test_only_unavailable_is_tried_again() -> None:
    calls: list[type[ShepherdError]] = []
    failing: ShepherdError = errors.Unavailable("restarting")

    async def fail_twice(request: StringValue, _context: Any) -> StringValue:
        calls.append(type(failing))
        if calls.count(type(failing)) < 3:
            raise failing
        return request

    async with served([echo(fail_twice)]) as channel:
        await dial.ask(once(channel), StringValue())
        for failing in (
            errors.Throttled("later"),
            errors.VersionMismatch("changed"),
            errors.OutcomeUnknown("too slow"),
            errors.Internal("broken"),
        ):
            with pytest.raises(type(failing)):
                await dial.ask(once(channel), StringValue())
    assert calls == [
        *[errors.Unavailable] * 3,
        errors.Throttled,
        errors.VersionMismatch,
        errors.OutcomeUnknown,
        errors.Internal,
    ]


async def _never(_request: StringValue, _context: Any) -> StringValue:
    return await for_ever()


async def test_a_call_without_a_deadline_gets_the_channels() -> None:
    async with (
        serve.running([echo(_never)], LOOPBACK) as server,
        dial.channel(server.address, deadline=SHORT) as channel,
        asyncio.timeout(20),
    ):
        with pytest.raises(errors.OutcomeUnknown):
            await dial.ask(once(channel), StringValue())
        with pytest.raises(grpc.aio.AioRpcError):
            await once(channel)(StringValue())


async def test_a_calls_own_deadline_counts_before_the_channels() -> None:
    async with served([echo(_never)]) as channel, asyncio.timeout(8):
        with pytest.raises(errors.OutcomeUnknown, match="Echo gave no answer in time"):
            await dial.ask(once(channel), StringValue(), deadline=SHORT)


async def test_a_service_waits_no_longer_for_another_than_its_own_caller_waits() -> None:
    left: list[float] = []

    async def note(request: StringValue, context: Any) -> StringValue:
        left.append(context.time_remaining())
        return request

    async with served([echo(note)]) as behind:

        async def forward(request: StringValue, _context: Any) -> StringValue:
            return await dial.ask(once(behind), request, deadline=LARGE)

        async with served([echo(forward)]) as front:
            await dial.ask(once(front), StringValue(), deadline=LONG)
    # gRPC rounds a deadline up to a hundredth of itself on its way.
    assert 0 < left[0] < 1.1 * LONG.total_seconds()


async def test_a_task_that_outlives_its_call_is_not_bound_by_its_deadline() -> None:
    over = asyncio.Event()
    during: list[timedelta | None] = []
    tasks: list[asyncio.Task[timedelta | None]] = []

    async def later() -> timedelta | None:
        await over.wait()
        return deadlines.remaining()

    async def start(request: StringValue, _context: Any) -> StringValue:
        during.append(deadlines.remaining())
        tasks.append(asyncio.create_task(later()))
        return request

    async with served([echo(start)]) as channel:
        await dial.ask(once(channel), StringValue(), deadline=LONG)
        over.set()
        assert await tasks[0] is None
    assert during[0] is not None
    assert deadlines.remaining() is None


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with serve.running([], LOOPBACK) as server:
        address = server.address
    async with dial.channel(address) as channel:
        with pytest.raises(errors.Unavailable):
            await dial.ask(once(channel), StringValue())


async def test_a_stream_that_is_left_ends_at_the_server() -> None:
    ended = asyncio.Event()

    async def endless(request: StringValue, _context: Any) -> AsyncIterator[StringValue]:
        try:
            while True:
                yield request
        finally:
            ended.set()

    async with served([echo(many=endless)]) as channel:
        async with aclosing(dial.listen(many(channel), StringValue())) as messages:
            await anext(messages)
        async with asyncio.timeout(20):
            await ended.wait()


# --- limits ---


async def test_a_burst_of_two_thousand_calls_is_answered_wholly() -> None:
    async with served([echo()]) as channel:
        ask = once(channel)
        answers = await asyncio.gather(
            *(dial.ask(ask, StringValue(value=str(n)), deadline=LONG) for n in range(2000))
        )
    assert [answer.value for answer in answers] == [str(n) for n in range(2000)]


async def test_streams_are_capped_for_a_client_and_calls_go_on() -> None:
    limits = Limits(streams_per_peer=3, calls=1)
    async with (
        serve.running([echo()], LOOPBACK, limits=limits) as server,
        dial.channel(server.address) as greedy,
        dial.channel(server.address) as modest,
    ):
        open_streams = [dial.listen(many(greedy), StringValue()) for _ in range(3)]
        for stream in open_streams:
            await anext(stream)
        with pytest.raises(errors.Throttled) as caught:
            await anext(dial.listen(many(greedy), StringValue()))
        assert caught.value.retry_after
        await dial.ask(once(greedy), StringValue())
        await anext(dial.listen(many(modest), StringValue()))
        await open_streams[0].aclose()
        await _eventually_opens(greedy)


async def _eventually_opens(channel: grpc.aio.Channel) -> None:
    """The server hears of the end of a stream a moment after the client."""
    async with asyncio.timeout(20):
        while True:
            try:
                await anext(dial.listen(many(channel), StringValue()))
            except errors.Throttled:
                await asyncio.sleep(0.01)
            else:
                return


async def test_a_call_too_many_is_told_when_to_come_back() -> None:
    begun = asyncio.Event()

    async def block(_request: StringValue, _context: Any) -> StringValue:
        begun.set()
        return await for_ever()

    async with (
        serve.running([echo(block)], LOOPBACK, limits=Limits(calls=1)) as server,
        dial.channel(server.address) as channel,
    ):
        first = asyncio.create_task(dial.ask(once(channel), StringValue(), deadline=LONG))
        await begun.wait()
        with pytest.raises(errors.Throttled) as caught:
            await dial.ask(once(channel), StringValue())
        assert caught.value.retry_after
        first.cancel()


# --- health ---


async def test_a_server_is_not_ready_before_it_says_so_and_alive_all_the_time() -> None:
    async with (
        serve.running([echo()], LOOPBACK, ready=False) as server,
        dial.channel(server.address) as channel,
    ):
        names = ["", ECHO.full_name, health.READINESS, health.LIVENESS]
        not_yet = [health.NOT_SERVING] * 3 + [health.SERVING]
        assert await _statuses(channel, names) == not_yet
        server.health.ready(True)
        assert await _statuses(channel, names) == [health.SERVING] * 4
        server.health.ready(False, ECHO.full_name)
        assert await _statuses(channel, names) == [
            health.SERVING,
            health.NOT_SERVING,
            health.SERVING,
            health.SERVING,
        ]


async def _statuses(channel: grpc.aio.Channel, names: Iterable[str]) -> list[int]:
    stub = health_stub(channel)
    return [(await dial.ask(stub.Check, HealthCheckRequest(service=name))).status for name in names]


async def test_list_names_every_service_and_an_unknown_one_is_not_found() -> None:
    async with served([echo()]) as channel:
        listing: Any = channel.unary_unary("/grpc.health.v1.Health/List")
        raw = await dial.ask(listing, b"")
        for name in (ECHO.full_name, "liveness", "readiness"):
            assert name.encode() in raw
        with pytest.raises(errors.NotFound):
            await _statuses(channel, ["nobody.Knows"])


async def test_a_watcher_is_told_each_change_and_the_end() -> None:
    async with (
        serve.running([echo()], LOOPBACK, ready=False) as server,
        dial.channel(server.address) as channel,
    ):
        watch = dial.listen(health_stub(channel).Watch, HealthCheckRequest(service=ECHO.full_name))
        assert (await anext(watch)).status == health.NOT_SERVING
        server.health.ready(True)
        assert (await anext(watch)).status == health.SERVING
        draining = asyncio.create_task(server.drain(LONG))
        assert (await anext(watch)).status == health.NOT_SERVING
        with pytest.raises(errors.Unavailable):
            await anext(watch)
        await draining


async def test_watchers_of_unknown_names_are_capped_and_known_ones_are_not() -> None:
    known = HealthCheckRequest(service=health.READINESS)
    unknown = HealthCheckRequest(service="nobody.Knows")
    async with (
        serve.running([], LOOPBACK, limits=Limits(streams_per_peer=500)) as server,
        dial.channel(server.address) as channel,
    ):
        watch = health_stub(channel).Watch
        watchers = [dial.listen(watch, unknown) for _ in range(64)]
        told = [(await anext(watcher)).status for watcher in watchers]
        assert set(told) == {HealthCheckResponse.SERVICE_UNKNOWN}
        with pytest.raises(errors.Throttled):
            await anext(dial.listen(watch, unknown))
        assert (await anext(dial.listen(watch, known))).status == health.SERVING


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _headers(pairs: Iterable[tuple[str, str]]) -> bytes:
    """HPACK without its tables: literal names and values."""
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in pairs
    )


SETTINGS, DATA, HEADERS, GOAWAY = 4, 0, 1, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1


class Reluctant:
    """A client that asks, by hand, and takes no byte of the answer but its headers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def asking(cls, port: int, path: str) -> "Reluctant":
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        headers = _headers([
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ])  # fmt: skip
        client._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        client.open_window(0)
        client._writer.write(_frame(SETTINGS, ACK, 0, b""))
        client._writer.write(_frame(HEADERS, END_HEADERS, 1, headers))
        client._writer.write(_frame(DATA, END_STREAM, 1, b"\x00" * 5))
        await client.until(HEADERS)
        return client

    def open_window(self, size: int) -> None:
        initial_window_size = (4).to_bytes(2) + size.to_bytes(4)
        self._writer.write(_frame(SETTINGS, 0, 0, initial_window_size))

    async def until(self, kind: int) -> bytes:
        """Read up to the first frame of that kind, itself included; what is in it."""
        while True:
            head = await self._reader.readexactly(9)
            said = await self._reader.readexactly(int.from_bytes(head[:3]))
            if head[3] == kind:
                return said

    def close(self) -> None:
        self._writer.close()


async def test_a_watcher_that_reads_nothing_stops_neither_the_others_nor_the_drain() -> None:
    async with (
        serve.running([], LOOPBACK) as server,
        dial.channel(server.address) as channel,
    ):
        stalled = await Reluctant.asking(server.port, "/grpc.health.v1.Health/Watch")
        request = HealthCheckRequest(service=health.READINESS)
        watch = dial.listen(health_stub(channel).Watch, request)
        async with asyncio.timeout(20):
            assert (await anext(watch)).status == health.SERVING
            server.health.ready(False)
            assert (await anext(watch)).status == health.NOT_SERVING
            await server.drain(LARGE)
        stalled.close()


# --- the life of a server ---


async def test_draining_lets_a_call_finish_and_ends_streams_at_once() -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow(request: StringValue, _context: Any) -> StringValue:
        begun.set()
        await finish.wait()
        return request

    async with (
        serve.running([echo(slow)], LOOPBACK) as server,
        dial.channel(server.address) as channel,
    ):
        call = asyncio.create_task(dial.ask(once(channel), StringValue(value="x"), deadline=LONG))
        stream = dial.listen(many(channel), StringValue())
        await anext(stream)
        await begun.wait()
        draining = asyncio.create_task(server.drain(LARGE))
        with pytest.raises(errors.Unavailable):
            await anext(stream)
        assert not draining.done()
        finish.set()
        assert (await call).value == "x"
        async with asyncio.timeout(20):
            await draining


async def test_a_draining_server_takes_on_nothing_new_and_still_says_how_it_is() -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow(request: StringValue, _context: Any) -> StringValue:
        begun.set()
        await finish.wait()
        return request

    async with (
        serve.running([echo(slow)], LOOPBACK) as server,
        dial.channel(server.address) as channel,
    ):
        call = asyncio.create_task(dial.ask(once(channel), StringValue(), deadline=LONG))
        await begun.wait()
        draining = asyncio.create_task(server.drain(LARGE))
        with pytest.raises(errors.Unavailable, match="stopping"):
            await _endlessly_asked(channel)
        with pytest.raises(errors.Unavailable, match="stopping"):
            await dial.ask(once(channel), StringValue())
        names = [health.READINESS, health.LIVENESS]
        assert await _statuses(channel, names) == [health.NOT_SERVING, health.SERVING]
        finish.set()
        await call
        await draining


async def _endlessly_asked(channel: grpc.aio.Channel) -> None:
    """Streams open until the server has begun to drain."""
    async with asyncio.timeout(20):
        while True:
            await anext(dial.listen(many(channel), StringValue()))


async def test_two_drains_at_once_end_at_the_shorter_grace() -> None:
    begun = asyncio.Event()

    async def block(_request: StringValue, _context: Any) -> StringValue:
        begun.set()
        return await for_ever()

    async with (
        serve.running([echo(block)], LOOPBACK) as server,
        dial.channel(server.address) as channel,
        asyncio.timeout(20),
    ):
        call = asyncio.create_task(dial.ask(once(channel), StringValue(), deadline=LONG))
        await begun.wait()
        await asyncio.gather(server.drain(LARGE), server.drain(SHORT), server.drain(SHORT))
        with pytest.raises(ShepherdError):
            await call


async def test_an_answer_that_leaves_slowly_is_not_cut_off_by_the_drain() -> None:
    async with serve.running([echo()], LOOPBACK) as server, asyncio.timeout(20):
        client = await Reluctant.asking(server.port, "/kit_test.Echo/Once")
        draining = asyncio.create_task(server.drain(LARGE))
        await client.until(GOAWAY)
        await asyncio.wait({draining}, timeout=0.2)
        client.open_window(1000)
        await client.until(DATA)
        client.close()
        await draining


async def test_a_watcher_that_is_late_hears_of_the_end_before_its_stream_ends() -> None:
    async with serve.running([], LOOPBACK) as server, asyncio.timeout(20):
        late = await Reluctant.asking(server.port, "/grpc.health.v1.Health/Watch")
        draining = asyncio.create_task(server.drain(LARGE))
        for _ in range(1000):
            await asyncio.sleep(0)
        late.open_window(1000)
        heard = [await late.until(DATA) for _ in range(2)]
        assert [HealthCheckResponse.FromString(each[5:]).status for each in heard] == [
            health.SERVING,
            health.NOT_SERVING,
        ]
        await draining
        late.close()


async def test_draining_cancels_what_does_not_end_within_its_grace() -> None:
    begun = asyncio.Event()

    async def block(_request: StringValue, _context: Any) -> StringValue:
        begun.set()
        return await for_ever()

    async with (
        serve.running([echo(block)], LOOPBACK) as server,
        dial.channel(server.address) as channel,
    ):
        call = asyncio.create_task(dial.ask(once(channel), StringValue(), deadline=LONG))
        await begun.wait()
        async with asyncio.timeout(20):
            await server.drain(SHORT)
            with pytest.raises(ShepherdError):
                await call


async def test_a_signal_ends_a_server_and_a_second_one_cuts_the_grace() -> None:
    begun = asyncio.Event()

    async def block(_request: StringValue, _context: Any) -> StringValue:
        begun.set()
        return await for_ever()

    async with (
        serve.running([echo(block)], LOOPBACK) as server,
        dial.channel(server.address) as channel,
        asyncio.timeout(30),
    ):
        stopped = asyncio.create_task(serve.until_stopped(server, LARGE))
        call = asyncio.create_task(dial.ask(once(channel), StringValue(), deadline=LONG))
        watch = dial.listen(health_stub(channel).Watch, HealthCheckRequest())
        await anext(watch)
        await begun.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await anext(watch)).status == health.NOT_SERVING
        assert not stopped.done()
        os.kill(os.getpid(), signal.SIGINT)
        await stopped
        with pytest.raises(ShepherdError):
            await call


async def test_a_taken_port_is_refused_by_a_sentence_that_names_it() -> None:
    async with serve.running([], LOOPBACK) as first:
        with pytest.raises(serve.CannotListen, match=f"{first.address}.*in use.*another address"):
            async with serve.running([], serve.Listen(address=first.address)):
                pass


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "10.1.2.3:50051", "vm.test:50051"])
async def test_strangers_are_not_listened_to_unless_it_is_written_out(address: str) -> None:
    with pytest.raises(serve.CannotListen, match="insecure: true"):
        async with serve.running([], serve.Listen(address=address)):
            pass


async def test_insecure_written_out_listens_anywhere() -> None:
    listen = serve.Listen(address="0.0.0.0:0", insecure=True)
    async with serve.running([], listen) as server:
        assert server.port > 0


async def test_a_unix_socket_can_be_listened_on(tmp_path: Any) -> None:
    listen = serve.Listen(address=f"unix:{tmp_path}/echo.sock")
    async with (
        serve.running([echo()], listen) as server,
        dial.channel(server.address) as channel,
    ):
        assert (await dial.ask(once(channel), StringValue(value="x"))).value == "x"


# --- reflection and channelz ---


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_all_services_and_describes_them_and_itself(version: str) -> None:
    async with served([echo()]) as channel:
        reflect = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        symbols = [
            ECHO.full_name,
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]

        async def questions() -> AsyncIterator[ServerReflectionRequest]:
            yield ServerReflectionRequest(list_services="*")
            for symbol in [*symbols, f"{ECHO.full_name}.{ECHO.methods[0].name}", "no.such.thing"]:
                yield ServerReflectionRequest(file_containing_symbol=symbol)

        answers = [answer async for answer in reflect(questions())]
    *answers, of_method, of_nothing = answers
    listed = [service.name for service in answers[0].list_services_response.service]
    assert sorted(listed) == sorted(symbols)
    for symbol, answer in zip(symbols, answers[1:], strict=True):
        (raw, *_) = answer.file_descriptor_response.file_descriptor_proto
        file = descriptor_pb2.FileDescriptorProto.FromString(raw)
        assert symbol in [f"{file.package}.{service.name}" for service in file.service]
    assert of_method.file_descriptor_response == answers[1].file_descriptor_response
    assert of_nothing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("wanted", [True, False])
async def test_channelz_is_served_on_request_only(*, wanted: bool) -> None:
    async with (
        serve.running([], LOOPBACK, channelz=wanted) as server,
        dial.channel(server.address) as channel,
    ):
        servers: Any = channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")
        if wanted:
            assert await dial.ask(servers, b"")
        else:
            with pytest.raises(errors.Unsupported):
                await dial.ask(servers, b"")
