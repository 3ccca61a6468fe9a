"""The stores of bench/locks.py as stages: what serves each of them, and what befalls it.

Each stage is a context manager that starts real servers in a folder of its own and leaves none.
"""

from __future__ import annotations

import random
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from bench.locks_churn import Fault, Spell, Stage
from bench.locks_services import Services
from tests.e2e import linux

Opening = Callable[[], AbstractContextManager[Stage]]

_SMALL_DISK: Final = 'mount -t tmpfs -o size=16m tmpfs "$0" && echo && exec cat'


@contextmanager
def memory() -> Iterator[Stage]:
    """One process that forgets; it is held up, never killed."""
    with _folder() as folder, Services(folder, "memory", {}) as services:
        yield Stage(
            name="memory",
            addresses=services.addresses,
            faults={"service held up": _hold_up(services)},
            beat=4,
            ended=services.ended,
        )


@contextmanager
def sqlite() -> Iterator[Stage]:
    """One process with its file, killed again and again; its files stop growing at times."""
    with _folder() as folder, Services(folder, "sqlite", {"path": "disk/a.sqlite"}) as services:
        yield Stage(
            name="sqlite",
            addresses=services.addresses,
            faults={
                "service killed": _kill(services),
                "files may not grow": _limit_files(services, folder / "disk"),
                "service held up": _hold_up(services),
            },
            often="service killed",
            beat=4,
            ended=services.ended,
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
            addresses=services.addresses,
            faults={"disk full": _fill(disk), "service killed": _kill(services)},
            often="disk full",
            beat=4,
            ended=services.ended,
        )


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


def _kill(services: Services) -> Fault:
    def kill(_: Spell, dice: random.Random) -> None:
        number = dice.randrange(len(services.addresses))
        services.kill(number)
        services.start(number)

    return kill


def _hold_up(services: Services) -> Fault:
    """Longer than a session lives."""

    def hold_up(spell: Spell, dice: random.Random) -> None:
        number = dice.randrange(len(services.addresses))
        services.pause(number)
        try:
            spell.last(dice.uniform(0.4, 1.2))
        finally:
            services.resume(number)

    return hold_up


def _limit_files(services: Services, disk: Path) -> Fault:
    def limit(spell: Spell, dice: random.Random) -> None:
        pid = services.pid(0)
        largest = max(path.stat().st_size for path in disk.iterdir())
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest // 2, hard))
        try:
            spell.last(dice.uniform(0.4, 1.2))
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    return limit


def _fill(disk: Path) -> Fault:
    def fill(spell: Spell, dice: random.Random) -> None:
        filler = disk / "filler"
        try:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(b"\0" * 4096):
                    pass
            spell.last(dice.uniform(0.4, 1.2))
        finally:
            filler.unlink()

    return fill


def of(driver: str) -> list[Opening]:
    """The stages of a driver."""
    small = [sqlite_on_a_small_disk] if linux.with_own_mounts() else []
    stages: dict[str, list[Opening]] = {"memory": [memory], "sqlite": [sqlite, *small]}
    return stages[driver]
