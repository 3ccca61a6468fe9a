"""What hostile clients send: every method of every service, each field of its request in turn.

The requests come from the descriptors, so a method or a field that is added is tried by itself. The
codes that an answer may have are those that the method's comment in its contract names.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2

from admin import suite
from tests.support.suite import until
from vmshepherd.health.v1 import health_service_pb2
from vmshepherd.iaas.v1 import iaas_service_pb2
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2
from vmshepherd.preset.v1 import preset_service_pb2
from vmshepherd.runtime.v1 import runtime_service_pb2
from vmshepherd_kit import config_file

PROTOS: Final = Path(__file__).parents[2] / "protos"
CONFIGURATION: Final = """\
suite_id: hostile
state_dir: state
preset:
  listen: {address: "127.0.0.1:0"}
  sources: [{name: local, driver: directory, options: {path: presets.d}}]
runtime: {listen: {address: "127.0.0.1:0"}, driver: memory}
iaas:
  listen: {address: "127.0.0.1:0"}
  providers: {sim: {driver: simulated}}
health: {listen: {address: "127.0.0.1:0"}}
orchestrator: {listen: {address: "127.0.0.1:0"}, interval: 1h}
"""
SECRET: Final = "the-user-data-of-web"
PRESET: Final = f"{{count: 2, flavor: small, image: any, userdata: {SECRET}}}\n"

SERVICES: Final[Mapping[str, ServiceDescriptor]] = {
    "preset": preset_service_pb2.DESCRIPTOR.services_by_name["PresetService"],
    "runtime": runtime_service_pb2.DESCRIPTOR.services_by_name["RuntimeService"],
    "iaas": iaas_service_pb2.DESCRIPTOR.services_by_name["IaasService"],
    "health": health_service_pb2.DESCRIPTOR.services_by_name["HealthService"],
    "orchestrator": orchestrator_service_pb2.DESCRIPTOR.services_by_name["OrchestratorService"],
}
METHODS: Final = [
    pytest.param(name, method, id=f"{name}-{method.name}")
    for name, service in SERVICES.items()
    for method in service.methods
]

# What any method may answer: to bytes that are no message, to too many at once, and when it stops.
ALWAYS: Final = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
CODES: Final = {code.name: code for code in grpc.StatusCode}
ANSWER_SECONDS: Final = 20.0
# A stream that is listened to has no end of its own.
STREAM_SECONDS: Final = 0.5

# Values that get a request past the first look, by the names of fields.
Usual = Mapping[str, Any]
PLAUSIBLE: Final[Usual] = {
    "provider": "sim",
    "preset": "db",
    "presets": "db",
    "name": "db",
    "names": "db",
    "driver": "dummy",
    "request_id": "6d1c3a1e-6c3f-4b0a-9d6e-5a2f4f0f2c11",
    "vm_id": "6d1c3a1e",
    "vm_ids": "6d1c3a1e",
    "target_id": "one",
    "addresses": "127.0.0.1",
    "owner": "hostile/1",
    "actor": "hostile",
    "evidence": "because",
    "reason": 5,
    "text": "count: 1\n",
    "wait": False,
    "fencing_token": 2**60,
    "page_size": 10,
}
TEXTS: Final = (
    "",
    "x" * 300_000,
    "\x00",
    "../../../etc/passwd",
    "żółw\u202e\U0001f4a5",
    "{{ 7 * 7 }}",
    "eyJtIjoiTGlzdFZtcyJ9",
    "127.0.0.1:80",
    "::1",
)
NUMBERS: Final = (0, -1, 1, 2**31 - 1, -(2**31))
LONG_NUMBERS: Final = (*NUMBERS, 2**62 + 1, 2**63 - 1, -(2**63))
FLOATS: Final = (float("nan"), float("inf"), -float("inf"), -1.0, 1e308)

MAPPINGS: Final[Sequence[Any]] = (
    {},
    {"": "x"},
    {"a" * 100_000: "b"},
    {"vmshepherd_suite": "other"},
    {str(n): "x" for n in range(2000)},
)

T: Final = FieldDescriptor
VALUES: Final[Mapping[int, Sequence[Any]]] = {
    T.CPPTYPE_STRING: TEXTS,
    T.CPPTYPE_INT32: NUMBERS,
    T.CPPTYPE_ENUM: NUMBERS,
    T.CPPTYPE_INT64: LONG_NUMBERS,
    T.CPPTYPE_DOUBLE: FLOATS,
    T.CPPTYPE_FLOAT: FLOATS,
    T.CPPTYPE_BOOL: (True, False),
    T.CPPTYPE_UINT32: (0, 1, 2**32 - 1),
    T.CPPTYPE_UINT64: (0, 1, 2**64 - 1),
}
# There are two of them, by how protobuf was built.
Field = Any


def documented() -> Mapping[str, set[str]]:
    """The codes in the comment of each method, by its name with its service."""
    found: dict[str, set[str]] = {}
    for path in PROTOS.glob("vmshepherd/*/v1/*_service.proto"):
        comment = ""
        for line in path.read_text().splitlines():
            if rpc := re.match(r"\s*rpc (\w+)\(", line):
                words = set(re.findall(r"\b[A-Z][A-Z_]+\b", comment)) & CODES.keys()
                alike = re.search(r"\bas (\w+), and", comment)
                words |= found[f"{path.stem}/{alike[1]}"] if alike else set()
                found[f"{path.stem}/{rpc[1]}"] = words
            comment = comment + line if line.strip().startswith("//") else ""
    return found


DOCUMENTED: Final = documented()


@asynccontextmanager
async def a_suite(folder: Path) -> AsyncIterator[Mapping[str, str]]:
    """Addresses of all five services; two presets are kept, and `db` is what is attacked."""
    (folder / "presets.d").mkdir()
    for name in ("web", "db"):
        (folder / "presets.d" / f"{name}.yaml").write_text(PRESET)
    file = folder / "vmshepherd.yaml"
    file.write_text(CONFIGURATION)
    configuration = config_file.read(file, embedded=True)
    async with (
        suite.behind(configuration) as servers,
        suite.in_front(configuration, servers) as front,
    ):
        addresses = {name: server.address for name, server in servers.items()}
        yield {**addresses, "orchestrator": front.address}


class Hostile:
    """A client that sends any bytes to any method."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self.channels = channels

    def call(self, name: str, method: MethodDescriptor, raw: bytes) -> Any:
        channel: Any = self.channels[name]
        kind = channel.unary_stream if method.server_streaming else channel.unary_unary
        path = f"/{method.containing_service.full_name}/{method.name}"
        answer = message_factory.GetMessageClass(method.output_type)
        timeout = STREAM_SECONDS if method.server_streaming else ANSWER_SECONDS
        return kind(path, response_deserializer=answer.FromString)(raw, timeout=timeout)

    async def send(self, name: str, method: MethodDescriptor, raw: bytes) -> tuple[str, str, Any]:
        """The code, its words, and the first answer."""
        call, answer = self.call(name, method, raw), None
        try:
            answer = await (call.read() if method.server_streaming else call)
        except grpc.aio.AioRpcError as e:
            return e.code().name, f"{e.details()} {e.trailing_metadata()}", None
        call.cancel()
        return "OK", "", answer if isinstance(answer, Message) else None

    async def ask(self, name: str, method: str, **fields: Any) -> Any:
        found = SERVICES[name].methods_by_name[method]
        request = message_factory.GetMessageClass(found.input_type)(**fields)
        return await self.call(name, found, request.SerializeToString())

    async def session(self) -> str:
        """A session that holds what is attacked, or would if nobody else did."""
        opened = await self.ask("runtime", "OpenSession", owner="hostile/1", ttl={"seconds": 60})
        session_id: str = opened.session.session_id
        wish = {"name": "db", "floor": 2**60 - 1}
        await self.ask("runtime", "TryLock", session_id=session_id, wishes=[wish])
        return session_id

    async def ids(self) -> set[str]:
        answer = await self.ask("iaas", "ListVms", provider="sim", presets=["web"])
        return {vm.vm_id for vm in answer.vms}


@pytest.fixture(scope="module")
def loop_of_module() -> Iterator[asyncio.Runner]:
    """One loop for the suite, which all cases share."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def hostile(
    loop_of_module: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hostile]:
    stack = AsyncExitStack()

    async def start() -> Hostile:
        addresses = await stack.enter_async_context(a_suite(tmp_path_factory.mktemp("suite")))
        channels = {
            name: await stack.enter_async_context(grpc.aio.insecure_channel(address))
            for name, address in addresses.items()
        }
        client = Hostile(channels)

        async def are_two() -> bool:
            return len(await client.ids()) == 2

        await until(are_two)
        return client

    yield loop_of_module.run(start())
    loop_of_module.run(stack.aclose())


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_no_request_gets_more_than_an_answer_that_the_contract_names(
    loop_of_module: asyncio.Runner,
    hostile: Hostile,
    name: str,
    method: MethodDescriptor,
    capfd: pytest.CaptureFixture[str],
) -> None:
    allowed = ALWAYS | DOCUMENTED[f"{name}_service/{method.name}"] | {"OK"}
    if method.server_streaming:
        allowed |= {"DEADLINE_EXCEEDED"}

    async def attack() -> None:
        before = await hostile.ids()
        requests = list(raw_requests(method, {**PLAUSIBLE, "session_id": await hostile.session()}))
        sent = (hostile.send(name, method, raw) for _, raw in requests)
        for (what, _), answer in zip(requests, await asyncio.gather(*sent), strict=True):
            code, words, message = answer
            assert code in allowed, (what, code, words)
            assert SECRET not in words, what
            for item in statuses(message):
                said = {c.name for c in grpc.StatusCode if c.value[0] == item.code}
                assert said <= allowed, (what, item)
        assert await hostile.ids() == before

    loop_of_module.run(attack())
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert SECRET not in out + err


def test_a_client_that_watches_and_never_reads_keeps_nobody_from_being_served(
    loop_of_module: asyncio.Runner, hostile: Hostile
) -> None:
    async def attack() -> None:
        method = SERVICES["orchestrator"].methods_by_name["WatchEvents"]
        streams = [hostile.call("orchestrator", method, b"") for _ in range(1000)]
        answers = await asyncio.gather(
            *(hostile.ask("orchestrator", "ListEvents") for _ in range(20))
        )
        assert all(answer.events for answer in answers)
        codes = {(await stream.code()).name for stream in streams}
        # On a slow machine their own deadline may come before the refusal of the fifty-first.
        assert codes <= {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}

    loop_of_module.run(attack())


def test_the_suite_is_whole_after_all_of_it(
    loop_of_module: asyncio.Runner, hostile: Hostile
) -> None:
    async def look() -> None:
        info = await hostile.ask("orchestrator", "GetInfo")
        assert all(backend.reachable for backend in info.backends)
        answer = await hostile.ask("orchestrator", "GetPreset", preset="web")
        assert dict(answer.preset.vms_by_status) == {"RUNNING": 2}

    loop_of_module.run(look())


# Requests


def raw_requests(method: MethodDescriptor, usual: Usual) -> Iterator[tuple[str, bytes]]:
    """Bytes that are no message, and messages with one field that is not as it should be."""
    yield "no message", b"\xff\xff\xff"
    yield "cut off", b"\x0a\x7f"
    yield "too large", b"\x7a" + _varint(6_000_000) + b"x" * 6_000_000
    kind = message_factory.GetMessageClass(method.input_type)
    yield "empty", b""
    yield "plausible", plausible(kind(), usual).SerializeToString()
    for what, message in spoilt(plausible(kind(), usual)):
        yield what, message.SerializeToString()


def plausible(message: Message, usual: Usual, depth: int = 5) -> Message:
    """The message with all of its fields set, as somebody would who means it."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and len(field.containing_oneof.fields) > 1:
            continue
        if field.message_type is not None:
            if depth and not _is_map(field) and field.message_type.name not in {"Struct", "Status"}:
                plausible(_child(message, field), usual, depth - 1)
            continue
        value = usual.get(field.name)
        if value is not None and isinstance(value, type(field.default_value)):
            _put(message, field, value)
    return message


def spoilt(message: Message) -> Iterator[tuple[str, Message]]:
    """The message once for each hostile value of each field, the nested ones too."""
    yield from _spoilt(message, message, "", 5)


def _spoilt(root: Message, message: Message, at: str, depth: int) -> Iterator[tuple[str, Message]]:
    for field in message.DESCRIPTOR.fields:
        name = f"{at}{field.name}"
        before = message.SerializeToString()
        if field.message_type is None or _is_map(field) or field.message_type.name == "Struct":
            for value in _hostile(field):
                message.ClearField(field.name)
                if not _try_to_put(message, field, value):
                    continue
                yield f"{name} = {value!r:.60}", root
            message.ParseFromString(before)
            if field.is_repeated and not _is_map(field):
                values = list(getattr(message, field.name)) or [_hostile(field)[0]]
                message.ClearField(field.name)
                for _ in range(10_001):
                    _try_to_put(message, field, values[0])
                yield f"{name} * 10,001", root
        elif depth:
            yield from _spoilt(root, _child(message, field), f"{name}.", depth - 1)
            message.ParseFromString(before)
            if field.is_repeated:
                first = _child(message, field)
                getattr(message, field.name).extend([first] * 10_001)
                yield f"{name} * 10,001", root
            message.ClearField(field.name)
            yield f"{name} left out", root
        message.ParseFromString(before)


def _hostile(field: Field) -> Sequence[Any]:
    if field.message_type is not None:
        return MAPPINGS
    if field.type == T.TYPE_BYTES:
        return [text.encode() for text in TEXTS]
    return VALUES[field.cpp_type]


def _try_to_put(message: Message, field: Field, value: Any) -> bool:
    try:
        _put(message, field, value)
    except (ValueError, TypeError):
        return False  # no client could say so in protobuf
    return True


def _put(message: Message, field: Field, value: Any) -> None:
    if isinstance(value, dict):
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _child(message: Message, field: Field) -> Message:
    value = getattr(message, field.name)
    if not field.is_repeated:
        value.SetInParent()
        return value  # type: ignore[no-any-return]
    return value[0] if value else value.add()  # type: ignore[no-any-return]


def _is_map(field: Field) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _varint(number: int) -> bytes:
    done = bytearray()
    while number > 0x7F:
        done.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*done, number])


# Answers


def statuses(message: Any) -> Iterator[status_pb2.Status]:
    """All of an answer's statuses, wherever they stand."""
    if not isinstance(message, Message):
        return
    if isinstance(message, status_pb2.Status):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None or _is_map(field):
            continue
        for each in value if field.is_repeated else [value]:
            yield from statuses(each)
