"""The processes of a whole suite, for bench/replicas.py: started, hurt, and told apart by their
lives.

A process keeps its name, its file and its port; each start of it is a `Life` with a pid and with
what befell it. Nothing of it outlives the block.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import grpc
import yaml
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.e2e.daemon import VMSHEPHERD, Daemon

_TRY: Final = 2.0
_PATIENCE: Final = 60.0
_OPTIONS: Final = [
    # Nobody asks twice on our behalf: what fails is to be seen.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
]


class Kind(StrEnum):
    """How a process is hurt."""

    KILL = "SIGKILL"
    STOP = "SIGSTOP"
    TERM = "SIGTERM"


@dataclass(frozen=True, slots=True)
class Hit:
    """One signal, and when it was sent."""

    kind: Kind
    at: float


@dataclass(slots=True, eq=False)
class Life:
    """One start of a process."""

    process: str
    pid: int
    hits: list[Hit] = field(default_factory=list)
    is_paused: bool = False
    is_over: bool = False
    is_serving: bool = False
    changed: float = field(default_factory=time.monotonic)
    """When it began to serve, or went on after standing still."""

    @property
    def is_well(self) -> bool:
        """Whether it runs and nobody wants it to end."""
        return not self.is_paused and not self.is_over

    @property
    def is_live(self) -> bool:
        """Whether a client should find it."""
        return self.is_well and self.is_serving


class Process:
    """One service; it lives again after each death."""

    def __init__(self, name: str, service: str, *, folder: Path, port: int) -> None:
        self.name = name
        self.address = f"127.0.0.1:{port}"
        self.log = folder / f"{name}.log"
        self._service = service
        self._file = folder / f"{name}.yaml"
        self._daemon: Daemon | None = None
        self._asking: asyncio.Task[None] | None = None
        self.channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        self.life = Life(name, 0, is_over=True)

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Write its file: the suite's, listening at its own address."""
        section = {**configuration.get(self._service, {}), "listen": {"address": self.address}}
        self._file.write_text(yaml.safe_dump({**configuration, self._service: section}))

    def start(self) -> None:
        """Begin a life; it is `is_serving` as soon as its health says so."""
        command = [VMSHEPHERD, "serve", self._service, "-c", str(self._file)]
        self._daemon = Daemon(command, log=self.log, cwd=self._file.parent)
        self.life = Life(self.name, self._daemon.pid)
        self._asking = asyncio.create_task(self._ask(self.life))

    def kill(self) -> None:
        """End it as a power failure does."""
        self._hurt(Kind.KILL, signal.SIGKILL)
        self.life.is_over = True

    def pause(self) -> None:
        """Let it stand still."""
        self._hurt(Kind.STOP, signal.SIGSTOP)
        self.life.is_paused = True

    def resume(self) -> None:
        """Let it go on."""
        self.life.is_paused = False
        self.life.changed = time.monotonic()
        self._send(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end."""
        self._hurt(Kind.TERM, signal.SIGTERM)
        self.life.is_over = True

    @property
    def is_running(self) -> bool:
        """Whether the process is there, standing still or not."""
        return self._daemon is not None and self._daemon.is_alive

    async def ended(self, seconds: float) -> int | None:
        """Its exit code; None when it does not end in that time."""
        daemon, end = self._daemon, time.monotonic() + seconds
        while daemon is not None and daemon.is_alive:
            if time.monotonic() > end:
                return None
            await asyncio.sleep(0.01)
        return daemon.wait() if daemon else 0

    def said(self) -> str:
        """Its log, over all lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    async def close(self) -> None:
        """Leave nothing of it."""
        if self._asking:
            self._asking.cancel()
        await self.channel.close()
        if self._daemon:
            self._daemon.kill_with_all()

    def _hurt(self, kind: Kind, number: signal.Signals) -> None:
        self.life.hits.append(Hit(kind, time.monotonic()))
        self._send(number)

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.life.pid, number)

    async def _ask(self, life: Life) -> None:
        stub: Any = HealthStub(self.channel)
        while not life.is_serving and not life.is_over:
            with suppress(grpc.aio.AioRpcError):
                answer = await stub.Check(HealthCheckRequest(), timeout=_TRY, wait_for_ready=True)
                life.is_serving = answer.status == answer.SERVING
                life.changed = time.monotonic()
            await asyncio.sleep(0.02)


class Fleet:
    """One preset, iaas and health service, some runtime services and orchestrators."""

    def __init__(
        self, folder: Path, configuration: Mapping[str, Any], *, names: Mapping[str, str],
        free_port: Callable[[], int],
    ) -> None:  # fmt: skip
        """`names` are the processes by their names, each with its service."""
        self.folder = folder
        self.lives: dict[int, Life] = {}
        self._processes = {
            name: Process(name, service, folder=folder, port=free_port())
            for name, service in names.items()
        }
        whole = {**configuration, **self._dialled(configuration)}
        for process in self._processes.values():
            process.configure(whole)

    def __getitem__(self, name: str) -> Process:
        return self._processes[name]

    def __iter__(self) -> Iterator[Process]:
        return iter(self._processes.values())

    def of(self, service: str) -> list[Process]:
        """All processes of a service."""
        return [each for name, each in self._processes.items() if name.startswith(service)]

    def live(self, service: str) -> list[Process]:
        """Those of them that a client should find."""
        return [each for each in self.of(service) if each.life.is_live]

    def away(self) -> str:
        """Who does not serve at the moment, for people."""
        names = [each.name for each in self if not each.life.is_live]
        return f"away: {', '.join(names) or 'nobody'}"

    def start(self, *names: str) -> None:
        """Begin a life of these."""
        for name in names:
            self[name].start()
            self.lives[self[name].life.pid] = self[name].life

    async def until_serving(self, *names: str) -> None:
        """Wait for these.  RuntimeError when one of them ends instead, or takes too long."""
        end = time.monotonic() + _PATIENCE
        for name in names:
            while not self[name].life.is_serving:
                if not self[name].is_running or time.monotonic() > end:
                    raise RuntimeError(f"{name} does not serve: {self[name].said()[-4000:]}")
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Leave nothing running."""
        for process in self:
            await process.close()

    def _dialled(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Where the orchestrators find the others: several of one kind as one list."""
        runtimes = ",".join(each.address for each in self.of("runtime"))
        services = {
            "preset": self["preset"].address,
            "runtime": f"ipv4:{runtimes}",
            "iaas": [self["iaas"].address],
            "health": self["health"].address,
        }
        return {"orchestrator": {**configuration["orchestrator"], "services": services}}
