from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.act import act
from orchestrator.archive import Archive
from orchestrator.authority import Authority
from orchestrator.clients.presets import Declared
from orchestrator.hands import Hands, Order
from orchestrator.model import (
    Cloud,
    Create,
    Fate,
    Intent,
    IntentPhase,
    Keep,
    Memory,
    Method,
    Outcome,
    Placement,
    Plan,
    Reason,
    Repair,
    RequestId,
    Step,
    Terminate,
    VmId,
    VmState,
)
from orchestrator.recall import recall
from orchestrator.records import preset_record
from runtime_service.domain import SessionId
from tests.support.given import CONDEMNED, UNHEALTHY, probes, seen, vm
from tests.support.shell import WEB, FakeIaas, Store, authority, journal, preset
from vmshepherd.iaas.v1 import iaas_service_pb2 as iaas_pb
from vmshepherd.orchestrator.v1 import record_pb2
from vmshepherd_kit.errors import (
    BadRequest,
    Denied,
    NoCapacity,
    NotFound,
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

    async def act(self, plan: Plan, declared: Declared = DECLARED) -> tuple[Memory, list[Outcome]]:
        assert declared.spec is not None
        order = Order(
            preset=WEB,
            declared=declared,
            provider="sim",
            fencing_token=self.token,
            seen=seen(
                declared.spec,
                probes=probes(a=UNHEALTHY),
                cloud=Cloud(has_console=bool(self.iaas.consoles)),
            ),
            plan=plan,
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


def failed(step: Step) -> Plan:
    return Plan(steps=(step,), memory=Memory(vms={VmId("a"): CONDEMNED}))


def repairing(method: Method) -> Plan:
    return failed(Repair(vm=vm("a"), method=method, evidence="it fails"))


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


@pytest.mark.parametrize("reason", Reason)
async def test_each_reason_to_destroy_is_told_to_the_cloud_as_what_it_is(reason: Reason) -> None:
    async with workplace() as here:
        await here.act(Plan(steps=(Terminate(vm=vm("a"), reason=reason, evidence="because"),)))
        [told] = here.iaas.terminated
        assert iaas_pb.MutationReason.Name(told.reason) == f"MUTATION_REASON_{reason.name}"


@pytest.mark.parametrize("reason", [Reason.DEAD, Reason.UNHEALTHY, Reason.BOOT_TIMEOUT])
@pytest.mark.parametrize("kind", [Terminate, Keep])
async def test_all_that_is_known_against_a_failed_vm_is_told_before_it_goes(
    kind: type[Terminate | Keep], reason: Reason
) -> None:
    async with workplace() as here:
        here.iaas.consoles = {VmId("a"): "Kernel panic"}
        await here.act(failed(kind(vm=vm("a", fault="lost"), reason=reason, evidence="it fails")))
        [told] = here.store.told("VM_TERMINATING" if kind is Terminate else "VM_KEPT")
        facts = dict(told.evidence)
        assert facts.pop("clause")
        assert facts == {
            "evidence": "it fails",
            "state": "RUNNING",
            "fault": "lost",
            "created": "2029-12-29T12:00:00+00:00",
            "spec_hash": "spec-1",
            "request_id": "request-of-a",
            "last_probe": "UNHEALTHY: connection refused",
            "failures": "3",
            "failing_since": "2030-01-01T11:55:00+00:00",
            "console": "Kernel panic",
        }


async def test_a_console_that_cannot_be_read_is_told_to_be_so_and_stops_nothing() -> None:
    async with workplace() as here:
        here.iaas.consoles = {VmId("other"): "fine"}
        plan = failed(Terminate(vm=vm("a"), reason=Reason.UNHEALTHY, evidence="it fails"))
        _, [outcome] = await here.act(plan)
        assert outcome.fate is Fate.DONE
        [told] = here.store.told("VM_TERMINATING")
        assert "could not be read" in told.evidence["console"]


@pytest.mark.parametrize(
    ("reason", "state"),
    [(Reason.SURPLUS, VmState.RUNNING), (Reason.DEAD, VmState.TERMINATED)],
)
async def test_no_console_is_read_of_a_vm_that_did_not_fail_or_has_none_any_more(
    reason: Reason, state: VmState
) -> None:
    async with workplace() as here:
        here.iaas.consoles = {VmId("a"): "fine"}
        await here.act(failed(Terminate(vm=vm("a", state), reason=reason, evidence="because")))
        [told] = here.store.told("VM_TERMINATING")
        assert "console" not in told.evidence


async def test_of_very_many_failed_vms_only_some_consoles_are_read() -> None:
    async with workplace() as here:
        names = [f"a{number:03}" for number in range(100)]
        here.iaas.consoles = {VmId(name): f"console of {name}" for name in names}
        await here.act(
            Plan(
                steps=tuple(
                    Terminate(vm=vm(name), reason=Reason.DEAD, evidence="gone") for name in names
                )
            )
        )
        told = [each.evidence["console"] for each in here.store.told("VM_TERMINATING")]
        assert told[:64] == [f"console of {name}" for name in names[:64]]
        assert set(told[64:]) == {"not read: more than 64 VMs failed at once"}
        assert len(here.iaas.terminated) == 100


async def test_where_the_provider_has_no_consoles_none_are_missed() -> None:
    async with workplace() as here:
        await here.act(failed(Terminate(vm=vm("a"), reason=Reason.DEAD, evidence="because")))
        [told] = here.store.told("VM_TERMINATING")
        assert "console" not in told.evidence


async def test_a_vm_that_is_kept_is_told_of_and_not_touched() -> None:
    async with workplace() as here:
        keep = Keep(vm=vm("a"), reason=Reason.UNHEALTHY, evidence="it fails")
        plan = failed(keep)
        memory, [outcome] = await here.act(plan)
        assert outcome == Outcome(step=keep, fate=Fate.DONE, vm_id=VmId("a"))
        assert not here.iaas.terminated
        assert [(each.vm_id, each.reason) for each in here.store.told("VM_KEPT")] == [
            ("a", "UNHEALTHY")
        ]
        after = recall(
            replace(plan, memory=memory), [outcome], spec=DECLARED.spec, now=here.clock.wall()
        )
        assert after.vms[VmId("a")].kept_since == here.clock.wall()


@pytest.mark.parametrize("door", ["append", "put_state"])
async def test_no_repair_is_begun_that_the_store_does_not_take(door: str) -> None:
    async with workplace() as here:
        here.store.refusing[door] = Unavailable("the store is away")
        with pytest.raises(Unavailable):
            await here.act(repairing(Method.REBOOT))
        assert not here.iaas.rebooted


async def test_a_repair_is_counted_in_the_store_before_it_is_begun() -> None:
    async with workplace() as here:
        here.iaas.repair_errors = [StaleFencingToken("somebody is newer")]
        with pytest.raises(StaleFencingToken):
            await here.act(repairing(Method.REBUILD))
        [remembered] = here.stored().vms
        assert remembered.rebuilds == 1
        assert [each.reason for each in here.store.told("VM_REBUILDING")] == ["UNHEALTHY"]


async def test_a_reboot_is_for_its_health_under_the_token_and_never_by_force() -> None:
    async with workplace() as here:
        _, [outcome] = await here.act(repairing(Method.REBOOT))
        assert outcome.fate is Fate.DONE
        [sent] = here.iaas.rebooted
        assert (sent.vm_id, sent.preset, sent.fencing_token) == ("a", WEB, here.token)
        assert sent.reason == iaas_pb.MUTATION_REASON_UNHEALTHY
        assert (sent.evidence, sent.force, sent.HasField("create_time")) == (
            "it fails",
            False,
            True,
        )


async def test_a_vm_is_rebuilt_of_what_is_declared_and_bears_its_hash() -> None:
    async with workplace() as here:
        declared = preset(image="debian-13", user_data="#!/bin/sh")
        await here.act(repairing(Method.REBUILD), declared)
        [sent] = here.iaas.rebuilt
        assert (sent.spec.image, sent.spec.user_data) == ("debian-13", "#!/bin/sh")
        assert sent.spec_hash == "spec-1"


async def test_a_vm_of_a_fallback_image_is_rebuilt_of_the_image_that_it_has() -> None:
    async with workplace() as here:
        declared = preset(image="debian-13", fallback_images=["debian-12"], user_data="#!/bin/sh")
        await here.act(repairing(Method.REBUILD), declared)
        [sent] = here.iaas.rebuilt
        assert (sent.spec.image, sent.spec.user_data) == ("", "#!/bin/sh")
        assert declared.vm_spec.image == "debian-13"


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize(
    ("error", "fate"),
    [(OutcomeUnknown("no answer"), Fate.UNKNOWN), (Unavailable("surely not"), Fate.FAILED)],
)
async def test_a_repair_fails_only_where_the_cloud_says_so(
    method: Method, error: ShepherdError, fate: Fate
) -> None:
    async with workplace() as here:
        here.iaas.repair_errors = [error]
        _, [outcome] = await here.act(repairing(method))
        assert (outcome.fate, outcome.message) == (fate, error.message)


async def test_a_vm_is_made_where_and_of_what_was_chosen_for_it() -> None:
    async with workplace() as here:
        chosen = Intent(
            request_id=RequestId("r"),
            name="web-1",
            spec_hash="spec-1",
            placement=Placement(image="debian-12", flavor="large", zone="az2"),
        )
        other = replace(chosen, request_id=RequestId("s"), placement=Placement(zone="az1"))
        steps = tuple(Create(each, "MISSING", "too few") for each in (chosen, other))
        plan = Plan(steps=steps, memory=Memory(intents=(chosen, other)))
        await here.act(plan, preset(image="debian-13", user_data="#!/bin/sh"))
        assert [
            (each.spec.image, each.spec.flavor, each.spec.availability_zone, each.spec.user_data)
            for each in here.iaas.created
        ] == [
            ("debian-12", "large", "az2", "#!/bin/sh"),
            ("debian-13", "small", "az1", "#!/bin/sh"),
        ]
        assert {each.spec_hash for each in here.iaas.created} == {"spec-1"}
        [first, _] = here.store.told("VM_CREATING")
        assert first.evidence["zone"] == "az2"


async def test_credentials_that_do_not_allow_it_have_a_class_of_their_own() -> None:
    async with workplace() as here:
        here.iaas.create_errors = [Denied("not your project")]
        _, [outcome] = await here.act(creating(1))
        assert outcome.reason == "DENIED"


@pytest.mark.parametrize(
    ("reason", "known_as"),
    [("IMAGE_NOT_FOUND", "IMAGE_NOT_FOUND"), ("NETWORK_NOT_FOUND", "NOT_FOUND")],
)
async def test_what_is_not_found_has_the_finest_class_that_patience_knows(
    reason: str, known_as: str
) -> None:
    async with workplace() as here:
        here.iaas.create_errors = [NotFound("no such thing", reason=reason)]
        _, [outcome] = await here.act(creating(1))
        assert outcome.reason == known_as


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
        for method in Method:
            with pytest.raises(SessionLost):
                await here.act(repairing(method))
        assert not here.iaas.terminated
        assert not here.iaas.created
        assert not here.iaas.rebooted
        assert not here.iaas.rebuilt


async def test_no_mutation_may_outlast_authority() -> None:
    async with workplace() as here:
        here.store.refusing["refresh_session"] = Unavailable("away")
        await here.clock.advance(timedelta(seconds=10))
        await here.act(creating(1))
        await here.act(ending("a"))
        for method in Method:
            await here.act(repairing(method))
        assert here.iaas.deadlines == [here.authority.remaining()] * 4


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
