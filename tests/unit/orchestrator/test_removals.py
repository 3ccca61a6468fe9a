from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.model import PresetName
from orchestrator.removals import FRESH_FOR, Removals, is_over
from orchestrator.schedule import Schedule
from runtime_service.domain import FencingToken, State
from tests.support.shell import WEB, Store
from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd_kit.errors import Unavailable
from vmshepherd_kit.testing import FakeClock

ALIVE = record_pb2.PresetRecord(
    vms=[record_pb2.VmMemory(vm_id="a")], will=record_pb2.Will(provider="sim")
)


@dataclass
class FakePresets:
    declared: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    is_synced: bool = True

    def get(self, name: str) -> Any:
        return name if name in self.declared else None

    def names(self) -> list[str]:
        return sorted(self.declared)

    def removed(self) -> list[str]:
        return sorted(self.gone - self.declared)


@dataclass
class Place:
    clock: FakeClock
    store: Store
    presets: FakePresets
    removals: Removals

    def write(self, name: str, record: record_pb2.PresetRecord = ALIVE) -> None:
        """A record, as some holder left it."""
        self.store.store._states[f"preset/{name}"] = State(
            name=f"preset/{name}",
            value=record.SerializeToString(),
            version=1,
            fencing_token=FencingToken(1),
            written=self.clock.wall(),
        )


@pytest.fixture
def here() -> Place:
    clock = FakeClock()
    store, presets = Store(clock), FakePresets()
    removals = Removals(presets=presets, runtime=store, clock=clock)  # type: ignore[arg-type]
    return Place(clock, store, presets, removals)


async def test_what_was_removed_before_this_process_began_is_found_once_every_source_was_read(
    here: Place,
) -> None:
    here.write("web")
    here.presets.is_synced = False
    assert await here.removals.stored() == {}
    here.presets.is_synced = True
    assert list(await here.removals.stored()) == ["web"]
    assert here.removals.names() == {"web"}


async def test_what_is_declared_or_over_is_not_removed(here: Place) -> None:
    here.presets.declared = {"web"}
    here.write("web")
    here.write("past", record_pb2.PresetRecord(accepted_count=3))
    here.write("coming", record_pb2.PresetRecord(intents=[record_pb2.Intent(request_id="r")]))
    assert list(await here.removals.stored()) == ["coming"]
    assert here.removals.names() == {"coming"}


@pytest.mark.parametrize(
    "record",
    [
        record_pb2.PresetRecord(vms=[record_pb2.VmMemory(vm_id="a")]),
        record_pb2.PresetRecord(intents=[record_pb2.Intent(request_id="r")]),
        record_pb2.PresetRecord(vm_views=[view_pb2.VmView(vm_id="a")]),
    ],
)
def test_nothing_is_over_of_which_something_may_be_left(record: record_pb2.PresetRecord) -> None:
    assert not is_over(record)
    assert is_over(record_pb2.PresetRecord(will=record_pb2.Will(provider="sim")))


async def test_one_removed_now_is_known_at_once_and_forgotten_when_it_is_over(here: Place) -> None:
    here.presets.gone = {"web"}
    assert here.removals.names() == {"web"}
    here.removals.end(WEB)
    assert here.removals.names() == set()
    # It came back, and is removed anew.
    here.removals.revive(WEB)
    assert here.removals.names() == {"web"}


async def test_what_another_replica_brought_to_its_end_is_noticed_after_a_while(
    here: Place,
) -> None:
    here.presets.gone = {"web"}
    here.write("web")
    await here.removals.stored()
    here.write("web", record_pb2.PresetRecord())
    await here.removals.stored()
    assert here.removals.names() == {"web"}
    await here.clock.advance(FRESH_FOR)
    assert await here.removals.stored() == {}
    assert here.removals.names() == set()


@pytest.mark.parametrize(
    ("removed", "declared", "is_held_back"),
    [(1, 1, False), (2, 2, True), (2, 8, False), (3, 9, True), (10, 1, True)],
)
async def test_more_than_a_part_of_all_presets_is_not_believed_to_be_meant(
    here: Place, removed: int, declared: int, *, is_held_back: bool
) -> None:
    here.presets.declared = {f"kept-{number}" for number in range(declared)}
    # Half of them are known from the store alone.
    for number in range(removed):
        here.write(f"gone-{number}")
    here.presets.gone = {f"gone-{number}" for number in range(0, removed, 2)}
    why = await here.removals.why_held_back(PresetName("gone-0"), 20, was_held_back=False)
    assert bool(why) is is_held_back
    if is_held_back:
        assert f"{removed} of {removed + declared} presets" in why
        assert "vmshepherd preset reconcile gone-0 --approve-count" in why


@pytest.mark.parametrize("removed", [1, 10])
async def test_where_nothing_is_declared_any_more_nothing_is_believed_to_be_meant(
    here: Place, removed: int
) -> None:
    for number in range(removed):
        here.write(f"gone-{number}")
    why = await here.removals.why_held_back(PresetName("gone-0"), 20, was_held_back=False)
    assert "no source declares any preset any more" in why
    assert "vmshepherd preset reconcile gone-0 --approve-count" in why


async def test_nobody_is_told_that_few_are_removed_while_the_store_cannot_be_asked(
    here: Place,
) -> None:
    here.presets.gone = {"web"}
    here.store.refusing["states"] = Unavailable("away")
    with pytest.raises(Unavailable):
        await here.removals.why_held_back(WEB, 20, was_held_back=False)


async def test_they_are_looked_after_although_nobody_here_ever_saw_them_declared(
    here: Place,
) -> None:
    looked = list[str]()

    async def look(name: PresetName) -> timedelta:
        looked.append(name)
        return timedelta(hours=1)

    here.write("web")
    here.write("of-an-older-version", record_pb2.PresetRecord(vms=ALIVE.vms))
    here.store.refusing["states"] = Unavailable("away")
    schedule = Schedule(look, clock=here.clock)
    parts = [asyncio.create_task(schedule.serve())]
    parts.append(asyncio.create_task(here.removals.watch(schedule)))
    await here.clock.advance(timedelta(milliseconds=500))
    assert looked == []
    here.store.refusing.clear()
    await here.clock.advance(timedelta(seconds=1))
    assert looked == ["web"]
    # And not more often for being found again.
    await here.clock.advance(2 * FRESH_FOR)
    assert looked == ["web"]
    for part in parts:
        part.cancel()
    await asyncio.gather(*parts, return_exceptions=True)
