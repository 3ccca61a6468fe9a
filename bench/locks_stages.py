"""The stores of bench/locks.py as stages: what serves each of them, and what befalls it.

Each stage is a context manager that starts real servers in a folder of its own and leaves none;
what the faults do is in bench/locks_faults.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench import locks_faults as faults
from bench.locks_churn import Stage
from bench.locks_services import Services
from tests.e2e import linux
from tests.support import postgres, zookeeper

Opening = Callable[[], AbstractContextManager[Stage]]

_SMALL_DISK: Final = 'mount -t tmpfs -o size=16m tmpfs "$0" && echo && exec cat'
# Of ZooKeeper's own sessions, those of runtime_service with it: the least that its ticks allow.
_SESSION_SECONDS: Final = 2


@contextmanager
def memory() -> Iterator[Stage]:
    """One process that forgets; it is held up, never killed."""
    with _folder() as folder, Services(folder, "memory", {}) as services:
        yield Stage(
            name="memory",
            services=services,
            faults={"service held up": faults.hold_up(services)},
            beat=4,
        )


@contextmanager
def sqlite() -> Iterator[Stage]:
    """One process with its file, killed again and again; its files stop growing at times."""
    with _folder() as folder, Services(folder, "sqlite", {"path": "disk/a.sqlite"}) as services:
        yield Stage(
            name="sqlite",
            services=services,
            faults={
                "service killed": faults.kill(services),
                "files may not grow": faults.limit_files(services, folder / "disk"),
                "service held up": faults.hold_up(services),
            },
            often="service killed",
            beat=4,
        )


@contextmanager
def sqlite_on_a_small_disk() -> Iterator[Stage]:
    """The same on a disk that is filled at times; somebody must let us mount one."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        before, disk = stack.enter_context(_small_disk(folder))
        options = {"path": "disk/a.sqlite"}
        services = stack.enter_context(Services(folder, "sqlite", options, before=before))
        yield Stage(
            name="sqlite on a small disk",
            services=services,
            faults={"disk full": faults.fill(disk), "service killed": faults.kill(services)},
            often="disk full",
            beat=4,
        )


@contextmanager
def postgres_server() -> Iterator[Stage]:
    """Two processes upon one server, which crashes every other time."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        server = stack.enter_context(postgres.running())
        services = stack.enter_context(Services(folder, "postgres", server.options(), count=2))
        yield Stage(
            name="postgres",
            services=services,
            faults={
                "server crashed": faults.crash(server),
                "connections terminated": faults.terminate(server),
                "server stood still": faults.stand_still(server),
                "service killed": faults.kill(services),
                "service held up": faults.hold_up(services),
            },
            often="server crashed",
            beat=5,
        )


@contextmanager
def postgres_pair() -> Iterator[Stage]:
    """Two processes upon a server and its synchronous standby, which change places."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        leader = stack.enter_context(postgres.running())
        standby = stack.enter_context(leader.with_standby(synchronous=True))
        pair = faults.Pair(leader, standby)
        options = leader.options(host=[each.host for each in (leader, standby)])
        options["port"] = [each.port for each in (leader, standby)]
        services = stack.enter_context(Services(folder, "postgres", options, count=2))
        yield Stage(
            name="postgres, a failover pair",
            services=services,
            faults={
                "failed over": pair.fail_over,
                "server crashed": pair.crash,
                "connections terminated": pair.terminate,
                "service killed": faults.kill(services),
            },
            often="failed over",
            beat=5,
            tells_floor=True,
        )


@contextmanager
def zookeeper_ensemble() -> Iterator[Stage]:
    """Two processes upon three nodes."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        ensemble = stack.enter_context(zookeeper.Ensemble(folder / "nodes", nodes=3))
        options = {"servers": ensemble.servers, "timeout": f"{_SESSION_SECONDS}s"}
        services = stack.enter_context(Services(folder, "zookeeper", options, count=2))
        long = 2 * _SESSION_SECONDS
        yield Stage(
            name="zookeeper",
            services=services,
            faults={
                "leader killed": faults.kill_leader(ensemble),
                "a node stood still": faults.cut_off(ensemble, 1, seconds=long),
                "leader stood still": faults.cut_off_leader(ensemble, seconds=long),
                "majority cut off": faults.cut_off(ensemble, 2, seconds=long),
                "ensemble restarted": faults.restart_all(ensemble),
                "service killed": faults.kill(services),
                "service held up": faults.hold_up(services),
            },
            beat=10,
        )


def missing(driver: str) -> str | None:
    """How to get the server that a driver needs, where there is none."""
    servers = {"postgres": postgres.missing, "zookeeper": zookeeper.missing}
    return servers[driver]() if driver in servers else None


def of(driver: str) -> list[Opening]:
    """The stages of a driver."""
    small = [sqlite_on_a_small_disk] if linux.with_own_mounts() else []
    stages: dict[str, list[Opening]] = {
        "memory": [memory],
        "sqlite": [sqlite, *small],
        "postgres": [postgres_server, postgres_pair],
        "zookeeper": [zookeeper_ensemble],
    }
    return stages[driver]


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vmshepherd-locks-") as name:
        yield Path(name)


@contextmanager
def _small_disk(folder: Path) -> Iterator[tuple[list[str], Path]]:
    """A disk that outlives the processes upon it: what to put before them, and where it is seen
    from outside.
    """
    disk = folder / "disk"
    disk.mkdir()
    command = [*(linux.with_own_mounts() or []), "sh", "-c", _SMALL_DISK, str(disk)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as keeper:
        if not (keeper.stdout and keeper.stdout.readline()):
            raise RuntimeError(f"nothing can be mounted upon {disk}")
        users = ["--user", "--preserve-credentials"] if "-r" in command else []
        enter = ["nsenter", "--target", str(keeper.pid), "--mount", f"--wd={folder}", *users]
        yield enter, Path(f"/proc/{keeper.pid}/root{disk}")
        keeper.kill()
