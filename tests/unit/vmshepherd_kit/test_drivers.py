"""Finding drivers, and what an operator is told when there is none."""

import sys
from collections.abc import Callable
from enum import StrEnum
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest

from vmshepherd_kit import drivers
from vmshepherd_kit.errors import NotFound, Refused

Declare = Callable[..., None]


class Trait(StrEnum):
    DURABLE = "durable"
    SHARED = "shared between processes"


class Memory:
    traits = frozenset({Trait.DURABLE})


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Declares drivers of the group `runtime`, by name and value."""
    module = ModuleType("some_driver")
    module.Memory = Memory  # type: ignore[attr-defined]
    module.number = 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_driver", module)
    declared: list[EntryPoint] = []

    def entry_points(*, group: str) -> EntryPoints:
        return EntryPoints([entry for entry in declared if entry.group == group])

    monkeypatch.setattr(drivers, "entry_points", entry_points)

    def add(name: str, value: str) -> None:
        declared.append(EntryPoint(name, value, "vmshepherd.drivers.runtime"))

    add("memory", "some_driver:Memory")
    return add


@pytest.mark.parametrize("group", ["runtime", "vmshepherd.drivers.runtime"])
def test_a_driver_is_found_by_its_group_and_name(group: str, declare: Declare) -> None:
    assert drivers.load(group, "memory") is Memory


def test_a_driver_that_is_not_there_is_refused_with_what_is_installed(declare: Declare) -> None:
    declare("sqlite", "some_driver:Memory")
    with pytest.raises(NotFound, match="'redis'; installed: memory, sqlite"):
        drivers.load("runtime", "redis")
    with pytest.raises(NotFound, match="installed: none"):
        drivers.load("iaas", "memory")


def test_a_driver_declared_twice_is_refused_with_both(declare: Declare) -> None:
    declare("memory", "elsewhere:Memory")
    with pytest.raises(Refused, match=r"twice.*elsewhere:Memory.*some_driver:Memory"):
        drivers.load("runtime", "memory")


def test_the_same_declaration_seen_twice_is_one(declare: Declare) -> None:
    declare("memory", "some_driver:Memory")
    assert drivers.load("runtime", "memory") is Memory
    assert drivers.installed("runtime") == ["memory"]


def test_a_missing_extra_is_named_with_the_command_that_brings_it(
    declare: Declare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "postgres_driver.py").write_text("import asyncpg_that_is_not_there\n")
    declare("postgres", "postgres_driver:Postgres")
    with pytest.raises(Refused, match=r"asyncpg_that_is.*pip install vmshepherd\[postgres\]"):
        drivers.load("runtime", "postgres")


def test_a_broken_driver_is_not_taken_for_a_missing_extra(declare: Declare) -> None:
    declare("broken", "some_driver.nowhere:Memory")
    with pytest.raises(ImportError):
        drivers.load("runtime", "broken")


def test_what_is_no_class_is_no_driver(declare: Declare) -> None:
    declare("number", "some_driver:number")
    with pytest.raises(Refused, match="is no class"):
        drivers.load("runtime", "number")


def test_a_driver_that_lacks_a_demanded_trait_is_refused_by_it() -> None:
    drivers.demand(Memory(), {Trait.DURABLE})
    with pytest.raises(Refused, match=r"two replicas.*not shared between processes"):
        drivers.demand(Memory(), {Trait.DURABLE, Trait.SHARED}, why="two replicas run")
