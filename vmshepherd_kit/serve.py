"""One way to run a gRPC server: limits, health, reflection, errors, drain.

Every `server.py` of the suite mounts its servicers here, and `up` mounts them all in one process.
A server listens on loopback unless its settings say `insecure: true`; it is NOT_SERVING until it
runs and from the moment it drains; and it never lets a handler's failure leave as anything but a
status of ours.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import resource
import signal
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import grpc
import uvloop
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1.channelz import add_channelz_servicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from vmshepherd_kit import log, reflection
from vmshepherd_kit.admission import Admission, Limits
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.deadlines import DeadlineInterceptor
from vmshepherd_kit.errors import Refused
from vmshepherd_kit.health import Health
from vmshepherd_kit.settings import Settings
from vmshepherd_kit.status import ErrorsInterceptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

    from vmshepherd_kit.clock import Chance, Clock

T = TypeVar("T")

MIB: Final = 1024 * 1024

# Time for the watchers of health to take up that the end has come, and for the last answers to
# leave: one that its client does not read would wait for ever.
_LAST_ANSWERS: Final = timedelta(seconds=2)

_OPTIONS: Final[list[tuple[str, int]]] = [
    # Two servers on one port would each get half of the calls: the second one must fail to start.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 4 * MIB),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # By default a burst of more than 1,000 calls is answered CANCELLED at random, which nobody
    # retries.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    # Clients may ping every 10 s, also without calls; vanished ones are noticed within 80 s.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]

_log = log.get("serve")


class Listen(Settings):
    """Where a server listens; elsewhere than on loopback only if `insecure` is written out."""

    address: str
    insecure: bool = False


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One servicer, the generated function that adds it, and the descriptor of its service."""

    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object
    descriptor: ServiceDescriptor


class CannotListen(Refused):
    """The address cannot be listened on; the message says why and the way out."""

    reason = "CANNOT_LISTEN"


class Served(Protocol):
    """What runs and can be ended politely: a server, or something around one."""

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        ...

    async def drain(self, grace: timedelta) -> None:
        """End, letting calls finish for that long."""
        ...

    async def wait(self) -> None:
        """Wait until it has ended."""
        ...


class Server:
    """A running server: where it listens, what its health says, and how it ends."""

    def __init__(
        self,
        server: grpc.aio.Server,
        address: str,
        port: int,
        *,
        clock: Clock,
        health: Health,
        admission: Admission,
    ) -> None:
        self._server = server
        self._clock = clock
        self._admission = admission
        self._stopping: asyncio.Task[None] | None = None
        self.health = health
        self.port = port
        self.address = address

    async def drain(self, grace: timedelta) -> None:
        """End: say NOT_SERVING, end the streams, let calls finish for `grace`, then cancel them.

        Returns as soon as nothing is left to wait for.  Drained twice, the shorter grace counts.
        """
        self.health.ready(False)
        await self._let_watchers_hear()
        self._admission.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._admission.settled(), grace.total_seconds())
        if self._stopping is None:
            # Once and never twice: a second stop() beside a first one can crash gRPC.
            patience = _LAST_ANSWERS.total_seconds() if self._admission.is_idle else None
            self._stopping = asyncio.create_task(self._server.stop(patience))
        await asyncio.shield(self._stopping)

    async def wait(self) -> None:
        """Wait until the server has ended."""
        await self._server.wait_for_termination()

    async def _let_watchers_hear(self) -> None:
        """The watchers of health hear of the end before their streams end; on a busy machine a
        write before it may be told as done only after a while.
        """
        waits: set[asyncio.Future[None]] = {
            asyncio.ensure_future(self.health.heard()),
            asyncio.ensure_future(self._clock.sleep(_LAST_ANSWERS)),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()


class Around:
    """Something around a server that ends with it: what takes new settings derives from this."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        return self._server.address

    @property
    def port(self) -> int:
        """The port of that address."""
        return self._server.port

    async def drain(self, grace: timedelta) -> None:
        """End the server politely; what is around it ends with its own block."""
        await self._server.drain(grace)

    async def wait(self) -> None:
        """Wait until the server has ended."""
        await self._server.wait()


@asynccontextmanager
async def running(
    mounts: Sequence[Mount],
    listen: Listen,
    *,
    clock: Clock | None = None,
    chance: Chance | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    limits: Limits | None = None,
    channelz: bool = False,
    ready: bool = True,
) -> AsyncIterator[Server]:
    """A server of these servicers; it runs and, with `ready`, is SERVING within the block.

    `interceptors` run inside our own: errors, deadlines, admission.  On leaving the block, calls
    still running are cancelled: drain before that to be polite.
    """
    _refuse_strangers(listen)
    admission = Admission(limits or Limits())
    own = [ErrorsInterceptor(chance), DeadlineInterceptor(), admission]
    names = [mount.descriptor.full_name for mount in mounts]
    health = Health(names)
    raw = grpc.aio.server(interceptors=[*own, *interceptors], options=_OPTIONS)
    for mount in mounts:
        mount.add(mount.servicer, raw)
    add_HealthServicer_to_server(health, raw)
    reflection.add(raw, [*names, "grpc.health.v1.Health"])
    if channelz:
        add_channelz_servicer(raw)
    port = _bind(raw, listen.address)
    server = Server(
        raw,
        listen.address.rpartition(":")[0] + f":{port}" if port else listen.address,
        port,
        clock=clock or SystemClock(),
        health=health,
        admission=admission,
    )
    await raw.start()
    health.ready(ready)
    _log.debug("server runs", address=server.address, services=names)
    try:
        yield server
    finally:
        await server.drain(timedelta(0))


async def until_stopped(server: Served, grace: timedelta) -> None:
    """Wait for SIGTERM or SIGINT, or for the server's own end; then drain.

    A second signal cuts the grace short.
    """
    with stop_signals() as signals:
        stopped = asyncio.create_task(signals.get())
        ended = asyncio.create_task(server.wait())
        done, _ = await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        if stopped not in done:
            stopped.cancel()
            return
        _log.info("server drains", address=server.address, signal=stopped.result().name)
        again = asyncio.create_task(signals.get())
        draining = asyncio.create_task(server.drain(grace))
        await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        draining.cancel()
        await server.drain(timedelta(0))
        await ended


@contextmanager
def stop_signals() -> Iterator[asyncio.Queue[signal.Signals]]:
    """SIGTERM and SIGINT of this process, as a queue instead of an exception."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[signal.Signals] = asyncio.Queue()
    ours = (signal.SIGTERM, signal.SIGINT)
    for number in ours:
        loop.add_signal_handler(number, queue.put_nowait, number)
    try:
        yield queue
    finally:
        for number in ours:
            loop.remove_signal_handler(number)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a process's main coroutine on uvloop."""
    # Listings are ten thousands of values without cycles, made and dropped together: looking for
    # cycles among them every 700 allocations costs more than it finds.
    gc.set_threshold(50_000, 20, 100)
    _raise_descriptor_limit()
    return uvloop.run(main)


def _raise_descriptor_limit() -> None:
    """Every probe, connection and watched VM takes a descriptor: as many as we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _bind(server: grpc.aio.Server, address: str) -> int:
    """The port that was bound; 0 of a Unix socket, which has none."""
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as e:
        raise CannotListen(_why_not(address), address=address) from e
    return 0 if _is_unix(address) else port


def _why_not(address: str) -> str:
    """Ask the operating system itself: gRPC says only that it failed."""
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except (OSError, ValueError) as e:
        why = str(e)
    else:
        why = "it could not be bound"
    return (
        f"cannot listen on {address}: {why}; stop whoever listens there (`ss -ltnp` shows it), "
        "or set another address"
    )


def _refuse_strangers(listen: Listen) -> None:
    if listen.insecure or _is_unix(listen.address) or _is_loopback(listen.address):
        return
    raise CannotListen(
        f"{listen.address} is not a loopback address, and whoever reaches it could do everything: "
        "listen on 127.0.0.1, or write `insecure: true` if the network around it is trusted",
        reason="INSECURE_ADDRESS",
        address=listen.address,
    )


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_unix(address: str) -> bool:
    return address.startswith(("unix:", "unix-abstract:"))
