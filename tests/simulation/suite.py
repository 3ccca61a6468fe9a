"""One whole suite in one simulated place: three replicas, their services, a cloud, ten presets.

Brings the parts together and lets time pass; what goes wrong is `faults`, what must hold is
`invariants`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iaas_service.gates import Limits

from . import processes
from .clocks import UPTIME, HostClock
from .cloud import Truth
from .guests import Sight
from .ledger import Ledger
from .loop import Host, Kernel
from .network import Network
from .processes import Body, Process, Replica
from .source import Repository
from .stores import OverConnection, SharedMemory, SqliteFile
from .trace import Trace

REPLICAS = 3


@dataclass(frozen=True)
class Shape:
    """What kind of world a seed makes; everything not said is chosen by the seed."""

    seed: int
    presets: int = 10
    keyed: bool = False
    eventful: bool = False
    durable: bool = False
    runtimes: int = 1
    proves_network: bool = True

    @classmethod
    def of(cls, seed: int) -> Shape:
        """The world of a seed."""
        chance = random.Random(f"shape {seed}")
        durable = chance.random() < 0.25
        return cls(
            seed=seed,
            keyed=chance.random() < 0.5,
            eventful=chance.random() < 0.3,
            durable=durable,
            runtimes=1 if durable else chance.choice((1, 2)),
            proves_network=chance.random() < 0.7,
        )


class World:
    """Everything there is, at one moment."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self.shape = shape
        self.chance = random.Random(f"world {shape.seed}")
        self.kernel = Kernel(self.chance.getrandbits(64))
        self.trace = Trace()
        self.network = Network(self.kernel, self.trace, self.chance.getrandbits(64))
        self.truth = Truth(
            self.kernel,
            self.trace,
            self.chance.getrandbits(64),
            keyed=shape.keyed,
            eventful=shape.eventful,
        )
        self.sight = Sight()
        self.repository = Repository()
        self.ledger = Ledger(self.kernel)
        self.removed: set[str] = set()
        self.lost_writes_at = -1e9
        self.clock_set_at = -1e9
        self.memory: SharedMemory | None = None
        self._folder = folder
        self.runtimes = self._runtimes()
        self.iaas = self._service("iaas", processes.iaas(self.truth, Limits()))
        self.health = self._service(
            "health",
            processes.health(self.truth, self.sight, proves_network=shape.proves_network),
        )
        self.presets = self._service("preset", processes.presets(self.repository, folder))
        self.replicas = [self._replica(number) for number in range(REPLICAS)]

    @property
    def processes(self) -> list[Process]:
        """Every process of the suite."""
        return [*self.runtimes, self.iaas, self.health, self.presets, *self.replicas]

    def start(self) -> None:
        """Start everything."""
        for process in self.processes:
            process.start()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.kernel.run_until(self.kernel.now + seconds)

    def _runtimes(self) -> list[Process]:
        if self.shape.durable:
            database = SqliteFile(self._folder)
            return [
                self._service(
                    "runtime-1", processes.runtime(database.open, self.ledger), database.drop
                )
            ]
        # A database on a machine of its own, which outlives every process of the suite.
        clock = HostClock(Host(self.kernel, "database", booted=-UPTIME))
        memory = self.memory = SharedMemory(clock)

        async def connect(_: HostClock) -> Any:
            return OverConnection(memory)

        return [
            self._service(f"runtime-{number + 1}", processes.runtime(connect, self.ledger))
            for number in range(self.shape.runtimes)
        ]

    def _service(self, name: str, body: Body, left_behind: Any = lambda: None) -> Process:
        return Process(name, body, left_behind=left_behind, **self._common())

    def _replica(self, number: int) -> Replica:
        address = f"runtime-{number % self.shape.runtimes + 1}"
        return Replica(
            f"replica-{number + 1}",
            runtime_address=address,
            folder=self._folder,
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        return {
            "kernel": self.kernel,
            "network": self.network,
            "seed": self.chance.getrandbits(40),
            "rate": self.chance.uniform(0.98, 1.02),
            "skew": self.chance.choice((0.0, 0.0, self.chance.uniform(-3600, 3600))),
        }


@contextmanager
def world(shape: Shape) -> Iterator[World]:
    """A world, and afterwards none."""
    with TemporaryDirectory(prefix="simulation-", dir=_fast()) as folder:
        made = World(shape, Path(folder))
        try:
            yield made
        finally:
            for process in made.processes:
                process.kill()
            made.kernel.bury()


def _fast() -> str | None:
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() else None
