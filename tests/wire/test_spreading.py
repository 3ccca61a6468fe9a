"""Several orchestrators share the presets: by their names, by who is alive, and by what each can
take. Whatever moves, no VM is touched by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.suite import SHORT_SESSION, Place, Replica, place, until

PRESETS = [f"web-{number}" for number in range(24)]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as found:
        for name in PRESETS:
            found.declare(name, count=1)
        yield found


def held_by(replica: Replica) -> set[str]:
    return set(replica.parts.cycles.authority.tokens())


def owner(replica: Replica) -> str:
    return str(replica.parts.cycles.authority.owner)


def home(replica: Replica, preset: str) -> str:
    """Who looks after a preset, as a replica sees it."""
    return str(replica.parts.cycles.replicas.home(preset))


async def shared(replicas: Sequence[Replica]) -> None:
    """Wait until these hold all presets, each one in the hands of the one that all think of."""
    owners = {owner(replica) for replica in replicas}

    async def is_so() -> bool:
        held = {name: owner(each) for each in replicas for name in held_by(each)}
        thought = [{name: home(each, name) for name in PRESETS} for each in replicas]
        return set(held.values()) == owners and all(each == held for each in thought)

    await until(is_so, lambda: str([held_by(each) for each in replicas]))


async def steady(replica: Replica) -> None:
    for name in PRESETS:
        await replica.settled(name)


async def test_presets_are_spread_over_the_replicas_and_a_join_moves_only_its_share(
    here: Place,
) -> None:
    first = await here.replica()
    await shared([first])
    await steady(first)
    second = await here.replica()
    await shared([first, second])
    before = [held_by(first), held_by(second)]
    third = await here.replica()
    await shared([first, second, third])
    assert held_by(first) < before[0]
    assert held_by(second) < before[1]
    await steady(third)
    assert len(here.world.made) == len(PRESETS)
    info = await third.ask("GetInfo")
    told = {each.owner: {held.preset for held in each.presets} for each in info.replicas}
    assert told == {owner(each): held_by(each) for each in (first, second, third)}


async def test_every_replica_shows_every_preset(here: Place) -> None:
    replicas = [await here.replica() for _ in range(3)]
    await shared(replicas)
    for replica in replicas:
        await steady(replica)
        listed = (await replica.ask("ListPresets", page_size=1000)).presets
        assert [each.name for each in listed] == sorted(PRESETS)
        assert {each.owner for each in listed} == {owner(each) for each in replicas}


async def test_what_a_replica_holds_is_taken_over_sooner_than_any_session_ends_when_it_stops(
    here: Place,
) -> None:
    first, second = await here.replica(), await here.replica()
    await shared([first, second])
    await steady(second)
    stopping = asyncio.create_task(first.stop())
    # Its session would last far longer than this waits.
    await shared([second])
    await stopping
    assert len(here.world.made) == len(PRESETS)


async def test_the_presets_of_one_that_dies_are_shared_by_those_that_live(here: Place) -> None:
    replicas = [await here.replica(session=SHORT_SESSION) for _ in range(3)]
    await shared(replicas)
    await steady(replicas[0])
    tokens = dict(replicas[0].parts.cycles.authority.tokens())
    kept = [held_by(each) for each in replicas[1:]]
    await replicas[0].die()
    await shared(replicas[1:])
    assert all(now > was for now, was in zip(map(held_by, replicas[1:]), kept, strict=True))
    newer = {
        name: token
        for each in replicas[1:]
        for name, token in each.parts.cycles.authority.tokens().items()
    }
    assert all(newer[name] > token for name, token in tokens.items())
    assert len(here.world.made) == len(PRESETS)


async def test_one_that_is_cut_off_from_the_cloud_leaves_its_presets_to_the_others(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.fitness.LOOK", timedelta(seconds=0.2))
    monkeypatch.setattr("orchestrator.fitness.PATIENCE", timedelta(seconds=0.5))
    first, second = await here.replica(), await here.replica()
    await shared([first, second])
    first.gates["iaas"].cut()

    async def has_all() -> bool:
        return held_by(second) == set(PRESETS) and not held_by(first)

    await until(has_all, seconds=40)
    info = await second.ask("GetInfo")
    assert {each.owner: each.share for each in info.replicas} == {
        owner(first): 0,
        owner(second): 100,
    }


async def test_one_that_is_late_with_its_work_hands_a_part_of_it_over(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.replicas.STEP", timedelta(seconds=0.2))
    first, second = await here.replica(), await here.replica()
    await shared([first, second])
    before = held_by(first)
    late = first.parts.schedule
    monkeypatch.setattr(late, "lateness", lambda: timedelta(seconds=5))

    async def has_less() -> bool:
        return len(held_by(first)) < len(before) / 2

    await until(has_less)
    await shared([first, second])
    # Some of it stays: it works after all.
    assert held_by(first) < before


async def test_a_lock_that_could_not_be_freed_is_freed_later(here: Place) -> None:
    first = await here.replica()
    await shared([first])
    first.gates["runtime"].hold("Unlock")
    second = await here.replica()

    async def has_given_up_some() -> bool:
        return len(held_by(first)) < len(PRESETS)

    await until(has_given_up_some)
    assert not held_by(second)
    first.gates["runtime"].let_in("Unlock")
    await shared([first, second])
