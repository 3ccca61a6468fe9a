from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from orchestrator.beside import beside
from orchestrator.board import Tally
from orchestrator.model import PresetName
from orchestrator.replicas import LOOK, Replicas
from orchestrator.share import STEP
from tests.support.shell import Store
from vmshepherd_kit.errors import Unavailable
from vmshepherd_kit.testing import FakeClock

NAMES = [PresetName(f"web-{number}") for number in range(40)]
TTL = timedelta(seconds=60)


@dataclass
class Woken:
    """The schedule: what it was told, and how late it is."""

    woken: list[PresetName] = field(default_factory=list)
    late: timedelta = timedelta(0)

    def names(self) -> list[PresetName]:
        return NAMES

    def wake(self, names: list[PresetName]) -> None:
        self.woken += names

    def lateness(self) -> timedelta:
        return self.late


@dataclass
class Fit:
    fit: bool = True

    def is_fit(self) -> bool:
        return self.fit


@dataclass
class Place:
    clock: FakeClock
    store: Store
    replicas: Replicas
    schedule: Woken
    fitness: Fit

    async def joins(self, owner: str, **labels: str) -> str:
        known = {"role": "orchestrator", **labels}
        return await self.store.open_session(
            owner, ttl=TTL, lock_delay=TTL, labels=known, deadline=TTL
        )

    async def look(self) -> None:
        await self.clock.advance(LOOK)

    def ours(self) -> set[PresetName]:
        return {name for name in NAMES if self.replicas.home(name) == "me"}


@asynccontextmanager
async def place(
    tally: Tally | None = None, facts: Mapping[str, str] | None = None
) -> AsyncIterator[Place]:
    clock = FakeClock()
    store, schedule, fitness = Store(clock), Woken(), Fit()
    replicas = Replicas(
        store,  # type: ignore[arg-type]
        owner="me",
        facts=facts or {},
        tally=lambda: tally or Tally(),
        clock=clock,
    )
    here = Place(clock, store, replicas, schedule, fitness)

    async def watch() -> None:
        await replicas.watch(schedule, fitness)  # type: ignore[arg-type]

    async with beside(watch, clock=clock):
        yield here


async def test_nobody_knows_whose_a_preset_is_before_the_list_was_read() -> None:
    async with place() as here:
        assert not here.ours()
        await here.joins("me")
        await here.look()
        assert here.ours() == set(NAMES)
        assert here.schedule.woken == NAMES


async def test_only_what_moves_is_woken_when_another_one_comes_and_goes() -> None:
    async with place() as here:
        await here.joins("me")
        await here.look()
        before = here.ours()
        here.schedule.woken.clear()
        other = await here.joins("you")
        await here.look()
        gone = before - here.ours()
        assert 0 < len(gone) < len(NAMES)
        assert set(here.schedule.woken) == gone
        assert here.replicas.knows("you")
        here.schedule.woken.clear()
        await here.store.close_session(other, deadline=TTL)
        await here.look()
        assert here.ours() == before
        assert set(here.schedule.woken) == gone
        assert not here.replicas.knows("you")


async def test_a_session_of_another_kind_is_no_replica() -> None:
    async with place() as here:
        await here.joins("me")
        await here.joins("a person", role="")
        await here.look()
        assert here.ours() == set(NAMES)


async def test_one_that_leaves_looks_after_nothing_though_its_session_lives() -> None:
    async with place() as here:
        await here.joins("me")
        await here.joins("you")
        await here.look()
        assert here.replicas.leave()
        assert here.replicas.labels()["leaving"] == "yes"
        await here.look()
        assert {here.replicas.home(name) for name in NAMES} == {"you"}


async def test_the_last_one_works_on_until_it_ends() -> None:
    async with place() as here:
        await here.joins("me")
        await here.joins("you", leaving="yes")
        await here.look()
        assert here.ours() == set(NAMES)
        assert not here.replicas.leave()
        assert "leaving" not in here.replicas.labels()
        await here.look()
        assert here.ours() == set(NAMES)


async def test_one_that_leaves_is_known_until_its_session_ends_for_it_is_handing_over() -> None:
    async with place() as here:
        await here.joins("me")
        other = await here.joins("you", leaving="yes")
        await here.look()
        assert here.replicas.knows("you")
        await here.store.close_session(other, deadline=TTL)
        await here.look()
        assert not here.replicas.knows("you")


async def test_whoever_was_known_goes_on_being_known_while_the_list_cannot_be_read() -> None:
    async with place() as here:
        await here.joins("me")
        await here.joins("you")
        await here.look()
        before = here.ours()
        here.store.refusing["sessions"] = Unavailable("away")
        await here.clock.advance(TTL * 2)
        assert here.ours() == before


async def test_what_the_probers_of_the_others_say_is_added_up_without_our_own() -> None:
    async with place(Tally(1, 2, 3)) as here:
        await here.joins("me", **here.replicas.labels())
        await here.joins("you", failing="4", lost="1", probed="20")
        await here.joins("they", failing="1", probed="nonsense")
        await here.look()
        assert here.replicas.others == Tally(5, 1, 20)
        labels = here.replicas.labels()
        assert [labels[key] for key in ("failing", "lost", "probed")] == ["1", "2", "3"]


async def test_shares_of_another_version_are_taken_as_whole_ones() -> None:
    async with place() as here:
        await here.joins("me")
        await here.joins("you", share="plenty")
        await here.look()
        assert 5 < len(here.ours()) < 35


async def test_one_that_is_late_says_that_it_takes_less_and_one_that_is_unfit_nothing() -> None:
    async with place() as here:
        await here.joins("me")
        here.schedule.late = timedelta(seconds=9)
        await here.clock.advance(STEP + LOOK)
        assert here.replicas.labels()["share"] == "70"
        here.fitness.fit = False
        await here.look()
        assert here.replicas.labels()["share"] == "0"
        here.fitness.fit = True
        await here.look()
        assert here.replicas.labels()["share"] == "70"


async def test_others_are_told_the_facts() -> None:
    async with place(facts={"host": "here"}) as here:
        assert here.replicas.labels()["host"] == "here"
