from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from typing import Any

import pytest

from orchestrator.archive import Archive
from orchestrator.authority import Authority
from orchestrator.board import Board, Phase, Shown, Tally
from orchestrator.clients.presets import declared
from orchestrator.config import Config
from orchestrator.cycle import ELSEWHERE_LOOK, HANDED_OVER_LOOK, REMOVED_LOOK, RETRY_AFTER, Cycles
from orchestrator.desk import Desk
from orchestrator.hands import Hands
from orchestrator.model import PresetName, Probe, Verdict, VmId
from orchestrator.records import preset_record
from orchestrator.removals import Removals
from runtime_service.domain import LockWish, NewSession, SessionId
from tests.support.shell import WEB, FakeHealth, FakeIaas, Store, authority, journal, preset
from vmshepherd.orchestrator.v1 import record_pb2
from vmshepherd.preset.v1 import preset_pb2
from vmshepherd_kit import settings
from vmshepherd_kit.errors import (
    OutcomeUnknown,
    Refused,
    ShepherdError,
    StaleFencingToken,
    Throttled,
    Unavailable,
)
from vmshepherd_kit.testing import FakeClock


@dataclass
class FakePresets:
    declared: dict[PresetName, Any] = field(default_factory=dict)
    is_synced: bool = True
    error: str = ""
    lasts: dict[PresetName, Any] = field(default_factory=dict)
    read: list[preset_pb2.Source] = field(default_factory=list)
    understood: set[str] = field(default_factory=set)

    def get(self, name: PresetName) -> Any:
        return self.declared.get(name)

    def names(self) -> list[PresetName]:
        return sorted(self.declared)

    def removed(self) -> list[PresetName]:
        return [] if WEB in self.declared else [WEB]

    def last(self, name: PresetName) -> Any:
        return self.lasts.get(name)

    def is_understood(self, source: str, file: str) -> bool:
        return file in self.understood

    async def sources(self) -> list[preset_pb2.Source]:
        return self.read


@dataclass
class Alone:
    """The replicas: this one, or another that the test names."""

    owner: str = "me"
    alive: set[str] = field(default_factory=set)
    others: Tally = field(default_factory=Tally)

    def home(self, name: PresetName) -> str:
        return self.owner

    def knows(self, owner: str) -> bool:
        return owner in self.alive


@dataclass
class Place:
    clock: FakeClock
    store: Store
    iaas: FakeIaas
    presets: FakePresets
    authority: Authority
    cycles: Cycles
    replicas: Alone

    async def run(self) -> Shown:
        await self.cycles.run(WEB)
        shown = self.cycles.board.get(WEB)
        assert shown is not None
        return shown

    async def wish(self, vm_id: str) -> None:
        wish = record_pb2.TerminationWish(vm_id=vm_id, actor="anna")
        await self.cycles.desk.change(WEB, lambda record: record.terminations.append(wish))

    async def wishes(self) -> list[str]:
        return [wish.vm_id for wish in (await self.cycles.desk.wishes(WEB)).terminations]


@asynccontextmanager
async def place(count: int = 1) -> AsyncIterator[Place]:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    iaas, replicas = FakeIaas(clock), Alone()
    # Another one stays: where none is declared any more, nothing is destroyed unasked.
    presets = FakePresets({WEB: preset(count=count), PresetName("other"): preset(count=0)})
    hands = Hands(
        iaas=iaas,  # type: ignore[arg-type]
        authority=mine,
        journal=journal(store, clock),
        clock=clock,
        longest=timedelta(seconds=30),
    )
    cycles = Cycles(
        config=settings.parse({}, Config),
        presets=presets,  # type: ignore[arg-type]
        authority=mine,
        archive=Archive(store, mine, clock=clock),  # type: ignore[arg-type]
        desk=Desk(store, mine, clock=clock),  # type: ignore[arg-type]
        health=FakeHealth(),  # type: ignore[arg-type]
        hands=hands,
        board=Board(),
        removals=Removals(presets=presets, runtime=store, clock=clock),  # type: ignore[arg-type]
        replicas=replicas,  # type: ignore[arg-type]
    )
    async with mine.kept():
        yield Place(clock, store, iaas, presets, mine, cycles, replicas)


def codes(shown: Shown) -> list[str]:
    return [each.code for each in shown.conditions]


async def test_a_cycle_makes_what_is_missing_and_the_next_finds_nothing_to_do() -> None:
    async with place(count=3) as here:
        assert (await here.run()).phase is Phase.CONVERGING
        assert len(here.iaas.vms) == 3
        shown = await here.run()
        assert shown.phase is Phase.STEADY
        assert shown.next_look is not None
        written = here.store.calls["put_state"]
        await here.run()
        assert here.store.calls["put_state"] == written


async def test_an_outgrown_token_is_given_up_though_the_store_cannot_be_told() -> None:
    async with place() as here:
        await here.run()
        token = here.authority.token(WEB)
        here.iaas.unlistable = StaleFencingToken("somebody is newer", floor=str(10**15))
        here.store.refusing["unlock"] = Unavailable("the store is away")
        assert await here.cycles.run(WEB) == RETRY_AFTER
        assert here.authority.token(WEB) is None
        here.iaas.unlistable = None
        here.store.refusing.clear()
        assert (await here.run()).phase is Phase.STEADY
        newer = here.authority.token(WEB)
        assert token is not None
        assert newer is not None
        assert newer > 10**15 > token
        assert len(here.iaas.created) == 1


async def test_a_preset_that_another_replica_looks_after_is_left_to_it_between_two_cycles() -> None:
    async with place() as here:
        await here.run()
        assert here.authority.token(WEB) is not None
        here.replicas.owner = "them"
        assert await here.cycles.run(WEB) == ELSEWHERE_LOOK
        shown = here.cycles.board.get(WEB)
        assert shown is not None
        assert (shown.phase, shown.holder) == (Phase.ELSEWHERE, "them")
        assert here.authority.token(WEB) is None
        # Whatever is wrong with the VMs from now on is the other one's to mend.
        here.iaas.vms.clear()
        await here.cycles.run(WEB)
        assert not here.iaas.vms


async def test_a_preset_that_comes_back_is_read_anew() -> None:
    async with place() as here:
        await here.run()
        here.replicas.owner = "them"
        await here.cycles.run(WEB)
        state = here.store.store._states[f"preset/{WEB}"]
        here.store.store._states[f"preset/{WEB}"] = replace(state, version=state.version + 1)
        here.replicas.owner = "me"
        # A copy from before would be written upon a version that is not there any more.
        assert (await here.run()).phase is Phase.STEADY


async def test_while_nobody_can_tell_whose_it_is_nothing_is_begun() -> None:
    async with place() as here:
        here.replicas.owner = ""
        assert await here.cycles.run(WEB) == here.cycles.config.soon
        assert here.authority.token(WEB) is None
        assert not here.iaas.created


@pytest.mark.parametrize(
    ("error", "code"),
    [(Unavailable("the cloud is away"), "UNAVAILABLE"), (KeyError("a bug"), "INTERNAL")],
)
async def test_what_keeps_a_cycle_from_its_end_is_shown_and_told_once(
    error: Any, code: str
) -> None:
    async with place() as here:
        await here.run()
        here.iaas.unlistable = error
        for _ in range(3):
            assert await here.cycles.run(WEB) == RETRY_AFTER
        shown = here.cycles.board.get(WEB)
        assert shown is not None
        assert shown.phase is Phase.BLOCKED
        assert codes(shown) == [code]
        assert len([e for e in here.store.told("CONDITION_SET") if e.reason == code]) == 1
        here.iaas.unlistable = None
        assert (await here.run()).phase is Phase.STEADY
        assert [each.reason for each in here.store.told("CONDITION_CLEARED")] == [code]


async def test_a_preset_that_another_holds_is_looked_at_when_it_may_be_free() -> None:
    async with place() as here:
        session = SessionId("theirs")
        life = timedelta(seconds=7)
        new = NewSession(session_id=session, owner="them", ttl=life)
        await here.store.store.open_session(new)
        await here.store.store.try_lock(session, [LockWish("preset/web")])
        assert await here.cycles.run(WEB) == life
        # One that is alive is handing it over at this moment.
        here.replicas.alive.add("them")
        assert await here.cycles.run(WEB) == HANDED_OVER_LOOK
        shown = here.cycles.board.get(WEB)
        assert shown is not None
        assert (shown.phase, shown.holder) == (Phase.ELSEWHERE, "them")
        assert not here.iaas.created


async def test_a_preset_that_was_never_read_is_left_alone_and_says_so() -> None:
    async with place() as here:
        message = here.presets.declared[WEB].message
        message.ClearField("spec")
        here.presets.declared[WEB] = type(here.presets.declared[WEB])(message=message, spec=None)
        assert codes(await here.run()) == ["NEVER_READ"]
        assert here.authority.token(WEB) is None


async def test_presets_that_are_not_known_yet_are_not_taken_for_removed() -> None:
    async with place() as here:
        await here.run()
        here.presets.declared.clear()
        here.presets.is_synced = False
        assert await here.cycles.run(WEB) == RETRY_AFTER
        assert here.authority.token(WEB) is not None
        here.presets.is_synced = True
        assert await here.cycles.run(WEB) == REMOVED_LOOK
        shown = here.cycles.board.get(WEB)
        assert shown is not None
        assert shown.phase is Phase.REMOVED
        assert len(here.iaas.vms) == 1


async def test_a_wish_that_is_fulfilled_is_struck() -> None:
    async with place() as here:
        await here.run()
        [vm_id] = here.iaas.vms
        await here.wish(vm_id)
        await here.run()
        assert [each.vm_id for each in here.iaas.terminated] == [vm_id]
        assert await here.wishes() == []


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (Refused("not ours", reason="NOT_OURS"), False),
        (Refused("protected", reason="PROTECTED"), False),
        (Unavailable("the cloud is away"), True),
        (Throttled("later", reason="BUDGET_SPENT"), True),
        (OutcomeUnknown("no answer"), True),
    ],
)
async def test_a_wish_is_struck_only_when_it_is_refused_for_good(
    error: ShepherdError, *, stays: bool
) -> None:
    async with place() as here:
        await here.run()
        [vm_id] = here.iaas.vms
        await here.wish(vm_id)
        here.iaas.terminate_errors = [error]
        await here.run()
        assert await here.wishes() == ([vm_id] if stays else [])


async def test_a_wish_for_a_vm_that_is_out_of_sight_stays() -> None:
    async with place() as here:
        await here.run()
        [vm_id] = here.iaas.vms
        await here.wish(vm_id)
        here.iaas.hidden, here.iaas.unreadable = {VmId(vm_id)}, Unavailable("a cell is away")
        assert codes(await here.run()) == ["LISTING_INCOMPLETE"]
        assert await here.wishes() == [vm_id]


async def test_a_create_whose_answer_was_lost_is_found_and_not_repeated() -> None:
    async with place() as here:
        here.iaas.idempotent = False

        async def lose() -> None:
            here.iaas.before_create = None
            create = here.iaas.created[-1]
            await here.iaas.create("sim", create, deadline=timedelta(seconds=9))
            here.iaas.created.pop()
            raise OutcomeUnknown("the connection broke")

        here.iaas.before_create = lose
        shown = await here.run()
        assert "OUTCOME_UNKNOWN" in codes(shown)
        assert (await here.run()).phase is Phase.STEADY
        assert len(here.iaas.vms) == len(here.iaas.created) == 1


async def test_a_plan_of_a_preset_that_is_not_held_is_made_of_its_record() -> None:
    async with place(count=2) as here:
        await here.run()
        here.presets.declared[WEB] = preset(count=40)
        await here.authority.release(WEB)
        _, plan, look = await here.cycles.plan(WEB)
        assert [each.code for each in plan.refusals] == ["COUNT_NEEDS_APPROVAL"]
        assert look > timedelta(0)
        assert here.authority.token(WEB) is None


async def remove(here: Place) -> Shown:
    here.presets.declared.pop(WEB, None)
    return await here.run()


async def remembered(here: Place) -> record_pb2.PresetRecord:
    return preset_record(here.store.store._states["preset/web"].value)


async def test_where_the_vms_of_a_preset_are_is_known_after_its_declaration_is_gone() -> None:
    async with place() as here:
        await here.run()
        # The preset names no provider: the default may be another one by the time it is removed.
        assert (await remembered(here)).will.provider == "sim"
        shown = await remove(here)
        assert (shown.phase, codes(shown)) == (Phase.REMOVED, ["PRESET_REMOVED"])
        assert (await remembered(here)).removed_time.ToDatetime(UTC) == here.clock.wall()


async def test_a_removed_preset_is_not_over_while_a_vm_of_it_is_out_of_sight() -> None:
    async with place() as here:
        await here.run()
        await here.run()
        [vm_id] = here.iaas.vms
        here.iaas.hidden, here.iaas.unreadable = {VmId(vm_id)}, Unavailable("a cell is away")
        await remove(here)
        assert here.authority.token(WEB) is not None
        assert [each.vm_id for each in (await remembered(here)).vms] == [vm_id]
        here.iaas.unreadable = None
        here.iaas.vms.clear()
        assert await here.cycles.run(WEB) is None
        assert here.authority.token(WEB) is None
        assert here.cycles.board.get(WEB) is None
        assert not (await remembered(here)).vms
        assert [each.kind for each in here.store.told("PRESET_ENDED")] == ["PRESET_ENDED"]


async def test_a_removed_preset_is_not_over_while_a_create_may_still_come() -> None:
    async with place() as here:
        here.iaas.idempotent = False
        here.iaas.create_errors = [OutcomeUnknown("no answer")]
        await here.run()
        await remove(here)
        assert here.authority.token(WEB) is not None
        assert (await remembered(here)).intents
        await here.clock.advance(timedelta(minutes=3))
        assert await here.cycles.run(WEB) is None


async def test_a_removed_preset_of_which_nobody_knows_anything_is_let_go_without_a_word() -> None:
    async with place() as here:
        here.presets.declared.clear()
        assert await here.cycles.run(WEB) is None
        assert here.authority.token(WEB) is None
        assert here.cycles.board.get(WEB) is None
        assert here.store.events == []


async def test_the_protection_of_a_vm_that_is_out_of_sight_stays() -> None:
    async with place() as here:
        await here.run()
        [vm_id] = here.iaas.vms
        protection = record_pb2.Protection(vm_id=vm_id)
        await here.cycles.desk.change(WEB, lambda record: record.protections.append(protection))
        shown = await here.run()
        assert shown.protections == {vm_id}
        here.iaas.hidden, here.iaas.unreadable = {VmId(vm_id)}, Unavailable("a cell is away")
        await here.run()
        assert (await here.cycles.desk.wishes(WEB)).protections == {vm_id}
        here.iaas.unreadable = None
        here.iaas.vms.clear()
        await here.run()
        assert not (await here.cycles.desk.wishes(WEB)).protections


async def test_an_approval_does_not_make_up_for_a_source_that_cannot_be_seen() -> None:
    async with place() as here:
        policy = preset_pb2.Policy(on_remove=preset_pb2.ON_REMOVE_DELETE)
        policy.removal_grace.FromTimedelta(timedelta(0))
        here.presets.declared[WEB] = preset(count=1, policy=policy)
        await here.run()
        here.presets.error = "the preset service is away"
        await remove(here)

        def approve(record: record_pb2.OperatorRecord) -> None:
            record.approved_count = 0

        await here.cycles.desk.change(WEB, approve)
        shown = await here.run()
        assert codes(shown) == ["PRESET_REMOVED", "REMOVALS_NEED_APPROVAL"]
        assert not (await remembered(here)).removal_held_back
        assert len(here.iaas.vms) == 1
        here.presets.error = ""
        await here.run()
        assert not here.iaas.vms


async def test_what_a_probe_said_is_told_once_though_the_cycle_came_to_no_end() -> None:
    async with place() as here:
        check = preset_pb2.HealthCheck(driver="dummy")
        here.presets.declared[WEB] = preset(count=1, healthcheck=check)
        await here.run()
        [vm_id] = here.iaas.vms
        health = here.cycles.health
        assert isinstance(health, FakeHealth)
        health.probes[vm_id] = Probe(Verdict.UNHEALTHY, "refused")
        here.store.refusing["put_state"] = Unavailable("the store is away")
        assert codes(await here.run()) == ["UNAVAILABLE"]
        here.store.refusing.clear()
        await here.run()
        assert [each.reason for each in here.store.told("VM_PROBE")] == ["UNHEALTHY"]


async def test_an_edit_is_told_once_by_whoever_takes_it_first() -> None:
    async with place(count=1) as here:
        await here.run()
        edited = preset(count=3).message
        edited.spec_hash = "spec-2"
        here.presets.declared[WEB] = declared(edited)
        await here.authority.release(WEB)
        await here.run()
        await here.run()
        [told] = here.store.told("PRESET_EDITED")
        assert told.message == "the count went from 1 to 3; the spec changed: spec-1 → spec-2"
        assert told.evidence["former_count"] == "1"


async def test_an_approval_stays_while_the_vms_run_elsewhere_than_is_declared() -> None:
    async with place() as here:
        await here.run()

        def approve(record: record_pb2.OperatorRecord) -> None:
            record.approved_count = 40

        await here.cycles.desk.change(WEB, approve)
        here.presets.declared[WEB] = preset(count=40, provider="other")
        assert codes(await here.run()) == ["PROVIDER_CHANGED"]
        here.presets.declared[WEB] = preset(count=40)
        await here.run()
        assert len(here.iaas.vms) == 40
        assert not (await here.cycles.desk.read(WEB)).HasField("approved_count")
