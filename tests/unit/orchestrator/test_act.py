from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.act import Hands, Order, act
from orchestrator.archive import Archive
from orchestrator.authority import Authority
from orchestrator.model import (
    Create,
    Fate,
    Intent,
    IntentPhase,
    Memory,
    Outcome,
    Plan,
    Reason,
    RequestId,
    Terminate,
)
from orchestrator.recall import recall
from orchestrator.records import preset_record
from runtime_service.domain import SessionId
from tests.support.given import vm
from tests.support.shell import WEB, FakeIaas, Store, authority, journal, preset
from vmshepherd.orchestrator.v1 import record_pb2
from vmshepherd_kit.errors import (
    BadRequest,
    NoCapacity,
    OutcomeUnknown,
    SessionLost,
    ShepherdError,
    StaleFencingToken,
    Unavailable,
)
from vmshepherd_kit.testing import FakeClock

DECLARED = preset(count=8)


@dataclass
class Workplace:
    clock: FakeClock
    store: Store
    iaas: FakeIaas
    authority: Authority
    archive: Archive
    token: int

    @property
    def hands(self) -> Hands:
        return Hands(
            iaas=self.iaas,  # type: ignore[arg-type]
            authority=self.authority,
            journal=journal(self.store, self.clock),
            clock=self.clock,
            longest=timedelta(seconds=30),
        )

    async def act(self, plan: Plan) -> tuple[Memory, list[Outcome]]:
        order = Order(
            preset=WEB, declared=DECLARED, provider="sim", fencing_token=self.token, plan=plan
        )
        return await act(order, self.hands, lambda memory: self.archive.keep(WEB, memory))

    def stored(self) -> record_pb2.PresetRecord:
        state = self.store.store._states.get("preset/web")
        return preset_record(state.value if state else b"")


@asynccontextmanager
async def workplace() -> AsyncIterator[Workplace]:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        token = await mine.hold(WEB)
        assert isinstance(token, int)
        archive = Archive(store, mine, clock=clock)  # type: ignore[arg-type]
        await archive.load(WEB, token)
        yield Workplace(clock, store, FakeIaas(clock), mine, archive, token)


def creating(number: int) -> Plan:
    intents = tuple(
        Intent(request_id=RequestId(f"r{each}"), name=f"web-{each}", spec_hash="spec-1")
        for each in range(number)
    )
    steps = tuple(Create(each, "MISSING", "too few") for each in intents)
    return Plan(steps=steps, memory=Memory(intents=intents))


def ending(*names: str) -> Plan:
    steps = tuple(
        Terminate(vm=vm(name), reason=Reason.SURPLUS, evidence=f"{name} is too many")
        for name in names
    )
    return Plan(steps=steps)


async def test_why_a_vm_goes_is_in_the_journal_before_it_is_asked_to() -> None:
    async with workplace() as here:
        here.store.refusing["append"] = Unavailable("the store is away")
        with pytest.raises(Unavailable):
            await here.act(ending("a"))
        assert not here.iaas.terminated
        here.store.refusing.clear()
        await here.act(ending("a"))
        [told] = here.store.told("VM_TERMINATING")
        assert (told.vm_id, told.reason) == ("a", "SURPLUS")
        assert told.evidence["evidence"] == "a is too many"
        assert len(here.iaas.terminated) == 1


async def test_no_create_leaves_before_its_intent_is_stored() -> None:
    async with workplace() as here:
        seen = list[Any]()

        async def look() -> None:
            seen.append([(i.request_id, i.phase) for i in here.stored().intents])

        here.iaas.before_create = look
        await here.act(creating(1))
        assert seen == [[("r0", record_pb2.INTENT_PHASE_SENT)]]


@pytest.mark.parametrize("door", ["append", "put_state"])
async def test_nothing_is_made_that_the_store_does_not_take(door: str) -> None:
    async with workplace() as here:
        here.store.refusing[door] = StaleFencingToken("somebody is newer")
        with pytest.raises(StaleFencingToken):
            await here.act(creating(3))
        assert not here.iaas.created


async def test_creates_start_slowly_and_stop_where_one_fails() -> None:
    async with workplace() as here:
        here.iaas.create_errors = [None, None, NoCapacity("full")]
        plan = creating(8)
        memory, outcomes = await here.act(plan)
        assert len(here.iaas.created) == 3
        fates = [each.fate for each in outcomes]
        assert fates == [Fate.DONE, Fate.DONE, Fate.FAILED, *[Fate.UNTRIED] * 5]
        after = recall(
            replace(plan, memory=memory), outcomes, spec=DECLARED.spec, now=here.clock.wall()
        )
        # Closed: what failed, and what was never tried.
        assert [(each.request_id, each.phase) for each in after.intents] == [
            ("r0", IntentPhase.CONFIRMED),
            ("r1", IntentPhase.CONFIRMED),
        ]


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (OutcomeUnknown("no answer"), Fate.UNKNOWN),
        (Unavailable("surely not made"), Fate.FAILED),
        (BadRequest("no such flavor"), Fate.FAILED),
    ],
)
async def test_a_create_fails_only_where_the_cloud_says_so(
    error: ShepherdError, fate: Fate
) -> None:
    async with workplace() as here:
        here.iaas.create_errors = [error]
        plan = creating(1)
        memory, outcomes = await here.act(plan)
        assert [each.fate for each in outcomes] == [fate]
        after = recall(
            replace(plan, memory=memory), outcomes, spec=DECLARED.spec, now=here.clock.wall()
        )
        is_open = [each.phase for each in after.intents] == [IntentPhase.SENT]
        assert is_open == (fate is Fate.UNKNOWN)


async def test_no_mutation_is_begun_with_too_little_time() -> None:
    async with workplace() as here:
        here.store.refusing["refresh_session"] = Unavailable("away")
        # 16 s of authority, of which 1.4 s are left.
        await here.clock.advance(timedelta(seconds=14.6))
        assert here.authority.remaining() > timedelta(0)
        with pytest.raises(SessionLost):
            await here.act(ending("a"))
        with pytest.raises(SessionLost):
            await here.act(creating(1))
        assert not here.iaas.terminated
        assert not here.iaas.created


async def test_no_mutation_may_outlast_authority() -> None:
    async with workplace() as here:
        here.store.refusing["refresh_session"] = Unavailable("away")
        await here.clock.advance(timedelta(seconds=10))
        await here.act(creating(1))
        await here.act(ending("a"))
        assert here.iaas.deadlines == [here.authority.remaining()] * 2


async def test_authority_that_ends_between_two_chunks_stops_the_second() -> None:
    async with workplace() as here:
        lost = SessionId(here.authority.session_id)

        async def lose() -> None:
            here.iaas.before_create = None
            await here.store.store.close_session(lost)
            here.store.refusing["open_session"] = Unavailable("away")
            await here.clock.advance(timedelta(seconds=6))

        here.iaas.before_create = lose
        with pytest.raises(SessionLost):
            await here.act(creating(3))
        assert len(here.iaas.created) == 1


async def test_a_stale_token_ends_the_cycle_when_nothing_is_under_way_any_more() -> None:
    async with workplace() as here:
        release, ended = asyncio.Event(), list[str]()
        first = here.iaas.terminate

        async def slow(provider: str, mutation: Any, *, deadline: timedelta) -> bool:
            if mutation.vm_id == "b":
                await release.wait()
                ended.append("b")
                return await first(provider, mutation, deadline=deadline)
            raise StaleFencingToken("somebody is newer", floor="9")

        here.iaas.terminate = slow  # type: ignore[method-assign]
        acting = asyncio.create_task(here.act(ending("a", "b")))
        await here.clock.advance(timedelta(0))
        assert not acting.done()
        release.set()
        with pytest.raises(StaleFencingToken):
            await acting
        assert ended == ["b"]
