"""IaasService over a real server: its gates, its listings, its batches, its stream."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from iaas_service import marker
from iaas_service.domain import Order, Vm, VmId
from iaas_service.drivers.simulated import SimulatedCloud, SimulatedOptions, SimulatedWorld
from iaas_service.drivers.simulated.options import Lack
from iaas_service.gates import Limits
from iaas_service.port import Cloud, Trait
from iaas_service.providers import Provider
from iaas_service.server import mount
from iaas_service.servicer import IaasServicer
from vmshepherd.iaas.v1 import iaas_service_pb2 as pb
from vmshepherd.iaas.v1 import vm_pb2
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd_kit import dial, status, testing
from vmshepherd_kit.clock import SeededChance
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    Refused,
    ResumeTokenTooOld,
    ShepherdError,
    StaleFencingToken,
    Throttled,
    Unavailable,
    Unsupported,
)
from vmshepherd_kit.testing import FakeClock

SUITE = Suite(
    suite_id="wire", state_dir=Path("/nowhere"), base_dir=Path("/nowhere"), embedded=False
)


class Desk:
    """A client of the service, and the world behind it."""

    def __init__(self, channel: Any, world: SimulatedWorld, clock: FakeClock) -> None:
        self.stub = IaasServiceStub(channel)
        self.world = world
        self.clock = clock
        self._numbers = count(1)
        self._chance = SeededChance(7)

    def wish(self, *, preset: str = "web", token: int = 1, **spec: Any) -> pb.VmCreate:
        return pb.VmCreate(
            request_id=self._chance.uuid(),
            preset=preset,
            fencing_token=token,
            name=f"{preset}-{next(self._numbers)}",
            spec_hash="9f2c",
            spec=vm_pb2.VmSpec(flavor="small", **spec),
        )

    async def create(self, *wishes: pb.VmCreate) -> Sequence[pb.VmResult]:
        request = pb.CreateVmsRequest(provider="sim", creates=wishes)
        return (await dial.ask(self.stub.CreateVms, request)).results

    async def vm(self, **wish: Any) -> vm_pb2.Vm:
        [result] = await self.create(self.wish(**wish))
        assert result.status.code == 0, result.status
        return result.vm

    async def vms(self, number: int, **wish: Any) -> list[vm_pb2.Vm]:
        return [r.vm for r in await self.create(*(self.wish(**wish) for _ in range(number)))]

    async def listing(self, **request: Any) -> pb.ListVmsResponse:
        return await dial.ask(self.stub.ListVms, pb.ListVmsRequest(provider="sim", **request))

    async def get(self, *vm_ids: str, lines: int = 0, **options: Any) -> Sequence[pb.VmResult]:
        request = pb.GetVmsRequest(provider="sim", vm_ids=vm_ids, console_lines=lines)
        return (await dial.ask(self.stub.GetVms, request, **options)).results

    async def reboot(self, *mutations: pb.VmMutation) -> list[ShepherdError | None]:
        request = pb.RebootVmsRequest(provider="sim", reboots=mutations)
        answer = await dial.ask(self.stub.RebootVms, request)
        return [status.from_proto(result.status) for result in answer.results]

    async def rebuild(
        self, *mutations: pb.VmMutation, image: str = "debian-13", spec_hash: str = ""
    ) -> Sequence[pb.VmResult]:
        spec = vm_pb2.VmSpec(image=image)
        request = pb.RebuildVmsRequest(
            provider="sim", rebuilds=mutations, spec=spec, spec_hash=spec_hash
        )
        return (await dial.ask(self.stub.RebuildVms, request)).results

    async def terminate_all(
        self, mutations: Sequence[pb.VmMutation], **options: Any
    ) -> list[ShepherdError | bool]:
        request = pb.TerminateVmsRequest(provider="sim", terminations=mutations)
        answer = await dial.ask(self.stub.TerminateVms, request, **options)
        return [status.from_proto(r.status) or r.existed for r in answer.results]

    async def terminate(self, vm: vm_pb2.Vm, **told: Any) -> ShepherdError | bool:
        [outcome] = await self.terminate_all([mutation(vm, **told)])
        return outcome

    def lives(self, vm: vm_pb2.Vm) -> bool:
        return VmId(vm.vm_id) in self.world.records


def mutation(vm: vm_pb2.Vm, **told: Any) -> pb.VmMutation:
    fields: dict[str, Any] = {
        "vm_id": vm.vm_id,
        "preset": vm.marker.preset,
        "fencing_token": 1,
        "create_time": vm.create_time,
        "reason": pb.MUTATION_REASON_SURPLUS,
        "evidence": "there are more than declared",
    }
    given = {key: value for key, value in {**fields, **told}.items() if value is not None}
    return pb.VmMutation(**given)


def reason(outcome: object) -> str:
    assert isinstance(outcome, ShepherdError), outcome
    return outcome.reason


@asynccontextmanager
async def serving(
    cloud: Cloud, world: SimulatedWorld, clock: FakeClock, **options: Any
) -> AsyncIterator[Desk]:
    limits = options.pop("limits", None)
    provider = Provider.of("sim", "simulated", cloud, suite_id="wire", **options)
    servicer = IaasServicer(
        [provider], suite_id="wire", clock=clock, chance=SeededChance(3), limits=limits
    )
    async with testing.served([mount(servicer)]) as channel:
        yield Desk(channel, world, clock)
    await servicer.close()


def simulated(
    clock: FakeClock, kind: type[SimulatedCloud] = SimulatedCloud, **options: Any
) -> SimulatedCloud:
    return kind(
        SimulatedOptions(**options),
        provider="sim",
        suite=SUITE,
        clock=clock,
        chance=SeededChance(5),
    )


@asynccontextmanager
async def a_desk(**options: Any) -> AsyncIterator[Desk]:
    clock = FakeClock()
    served = {key: options.pop(key) for key in ("limits", "parallel_calls") if key in options}
    async with (
        simulated(clock, **options) as cloud,
        serving(cloud, cloud.world, clock, **served) as desk,
    ):
        yield desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with a_desk() as desk:
        yield desk


# The gates: each keeps a VM alive that would be gone without it.


async def test_a_vm_that_passes_all_gates_is_terminated(desk: Desk) -> None:
    vm = await desk.vm()
    assert await desk.terminate(vm) is True
    assert not desk.lives(vm)


async def test_a_vm_without_our_marker_is_not_touched(desk: Desk) -> None:
    vm = await desk.vm()
    desk.world.relabel(vm.vm_id, **{marker.SUITE: ""})
    assert reason(await desk.terminate(vm)) == "NOT_OURS"
    assert desk.lives(vm)


async def test_a_vm_of_another_suite_is_not_touched(desk: Desk) -> None:
    vm = await desk.vm()
    desk.world.relabel(vm.vm_id, **{marker.SUITE: "another"})
    assert reason(await desk.terminate(vm)) == "NOT_OURS"
    assert desk.lives(vm)


async def test_a_vm_whose_marker_is_damaged_is_not_touched(desk: Desk) -> None:
    vm = await desk.vm()
    desk.world.relabel(vm.vm_id, **{marker.TOKEN: "seven"})
    assert reason(await desk.terminate(vm)) == "NOT_OURS"
    assert desk.lives(vm)


async def test_a_vm_of_another_preset_is_not_touched(desk: Desk) -> None:
    vm = await desk.vm(preset="db")
    assert reason(await desk.terminate(vm, preset="web")) == "NOT_OURS"
    assert desk.lives(vm)


async def test_a_vm_that_was_made_at_another_time_is_another_vm(desk: Desk) -> None:
    vm = await desk.vm()
    vm.create_time.nanos += 1000
    assert reason(await desk.terminate(vm)) == "NOT_THE_SAME_VM"
    assert desk.lives(vm)


@pytest.mark.parametrize("told", [{}, {"reason": pb.MUTATION_REASON_OPERATOR}, {"force": True}])
async def test_a_protected_vm_is_not_touched(desk: Desk, told: dict[str, Any]) -> None:
    vm = await desk.vm(metadata={marker.PROTECTED: "true"})
    assert vm.protected
    assert reason(await desk.terminate(vm, **told)) == "PROTECTED"
    assert desk.lives(vm)


async def test_a_vm_that_the_cloud_locks_is_not_touched(desk: Desk) -> None:
    vm = await desk.vm()
    desk.world.lock(vm.vm_id)
    assert reason(await desk.terminate(vm)) == "PROTECTED"
    assert desk.lives(vm)


async def test_an_operator_may_force_a_protected_vm(desk: Desk) -> None:
    vm = await desk.vm(metadata={marker.PROTECTED: "true"})
    assert await desk.terminate(vm, reason=pb.MUTATION_REASON_OPERATOR, force=True) is True


async def test_nobody_may_force_a_vm_that_is_not_ours(desk: Desk) -> None:
    vm = await desk.vm()
    desk.world.relabel(vm.vm_id, **{marker.SUITE: ""})
    outcome = await desk.terminate(vm, reason=pb.MUTATION_REASON_OPERATOR, force=True)
    assert reason(outcome) == "NOT_OURS"
    assert desk.lives(vm)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reason", pb.MUTATION_REASON_UNSPECIFIED),
        ("reason", 99),
        ("evidence", "  "),
        ("create_time", None),
    ],
)
async def test_nothing_is_touched_without_reason_evidence_and_time(
    desk: Desk, field: str, value: object
) -> None:
    vm = await desk.vm()
    outcome = await desk.terminate(vm, **{field: value})
    assert isinstance(outcome, BadRequest)
    assert [violation.field for violation in outcome.violations] == [field]
    assert desk.lives(vm)


@pytest.mark.parametrize("name", sorted(set(pb.MutationReason.keys())))
async def test_each_reason_of_the_contract_passes_with_evidence_and_not_without(
    desk: Desk, name: str
) -> None:
    vm, number = await desk.vm(), pb.MutationReason.Value(name)
    without = await desk.terminate(vm, reason=number, evidence="")
    assert isinstance(without, BadRequest)
    assert "evidence" in without.message
    assert desk.lives(vm)
    outcome = await desk.terminate(vm, reason=number)
    assert isinstance(outcome, BadRequest) == (number == pb.MUTATION_REASON_UNSPECIFIED)
    assert desk.lives(vm) == (number == pb.MUTATION_REASON_UNSPECIFIED)


@pytest.mark.parametrize("token", [None, 0, -1, 2**61, 2**63 - 1])
async def test_nothing_is_touched_without_a_sound_token(desk: Desk, token: int | None) -> None:
    vm = await desk.vm()
    assert isinstance(await desk.terminate(vm, fencing_token=token), BadRequest)
    [made] = await desk.create(pb.VmCreate(**{**_fields(desk.wish()), "fencing_token": token}))
    assert isinstance(status.from_proto(made.status), BadRequest)
    assert desk.lives(vm)
    assert len(desk.world.vms) == 1


async def test_a_stale_token_is_refused_and_the_other_items_are_served(desk: Desk) -> None:
    web, db = await desk.vm(preset="web", token=5), await desk.vm(preset="db", token=1)
    outcomes = await desk.terminate_all(
        [mutation(web, fencing_token=4), mutation(db, fencing_token=1)]
    )
    assert reason(outcomes[0]) == "STALE_FENCING_TOKEN"
    assert outcomes[1] is True
    assert desk.lives(web)


async def test_a_listing_of_the_new_holder_shuts_the_old_one_out(desk: Desk) -> None:
    vm = await desk.vm(token=1)
    await desk.listing(held=[pb.PresetToken(preset="web", fencing_token=2)])
    assert reason(await desk.terminate(vm, fencing_token=1)) == "STALE_FENCING_TOKEN"
    [made] = await desk.create(desk.wish(token=1))
    assert isinstance(status.from_proto(made.status), StaleFencingToken)
    assert [v.vm_id for v in desk.world.vms] == [vm.vm_id]


async def test_a_listing_of_the_old_holder_is_refused_and_lowers_nothing(desk: Desk) -> None:
    vm = await desk.vm(token=7)
    held = [
        pb.PresetToken(preset="db", fencing_token=1),
        pb.PresetToken(preset="web", fencing_token=3),
    ]
    with pytest.raises(StaleFencingToken) as refusal:
        await desk.listing(held=held)
    assert refusal.value.facts == {"presets": "web", "floors": "7"}
    assert reason(await desk.terminate(vm, fencing_token=6)) == "STALE_FENCING_TOKEN"


async def test_a_listing_without_a_token_for_what_it_holds_is_refused(desk: Desk) -> None:
    with pytest.raises(BadRequest):
        await desk.listing(held=[pb.PresetToken(preset="web")])


async def test_the_tokens_on_the_vms_bring_the_floors_back_after_a_restart(desk: Desk) -> None:
    vm = await desk.vm(token=9)
    restarted = simulated(desk.clock)
    restarted.world = desk.world
    async with serving(restarted, desk.world, desk.clock) as fresh:
        listing = await fresh.listing()
        assert dict(listing.token_floors) == {"web": 9}
        assert reason(await fresh.terminate(vm, fencing_token=8)) == "STALE_FENCING_TOKEN"


async def test_a_forged_token_on_a_vm_bars_nobody_from_its_preset(desk: Desk) -> None:
    vm = await desk.vm(token=9)
    forged = await desk.vm(token=2**60 + 1)
    restarted = simulated(desk.clock)
    restarted.world = desk.world
    async with serving(restarted, desk.world, desk.clock) as fresh:
        listing = await fresh.listing()
        assert {each.vm_id for each in listing.vms} == {vm.vm_id, forged.vm_id}
        assert dict(listing.token_floors) == {"web": 9}
        assert await fresh.terminate(vm, fencing_token=10) is True


async def test_terminating_what_is_gone_is_ok_and_did_not_exist(desk: Desk) -> None:
    vm = await desk.vm()
    desk.world.vanish(vm.vm_id)
    assert await desk.terminate(vm) is False


async def test_a_vm_that_cannot_be_read_is_not_touched(desk: Desk) -> None:
    vms = await desk.vms(2)
    desk.world.cell_down()
    outcomes = [await desk.terminate(vm) for vm in vms]
    assert outcomes[0] is True
    assert isinstance(outcomes[1], Unavailable)
    desk.world.cell_down(False)
    assert desk.lives(vms[1])


async def test_one_vm_that_cannot_be_deleted_holds_up_no_other(desk: Desk) -> None:
    stuck, *others = await desk.vms(3)
    desk.world.undeletable(stuck.vm_id)
    outcomes = await desk.terminate_all([mutation(vm) for vm in (stuck, *others)])
    assert isinstance(outcomes[0], Unavailable)
    assert outcomes[1:] == [True, True]


# Budget and breaker.


async def test_the_budget_ends_and_comes_back_with_time() -> None:
    limits = Limits(terminations=3, window=timedelta(minutes=10))
    async with a_desk(limits=limits) as desk:
        vms = await desk.vms(5)
        outcomes = await desk.terminate_all([mutation(vm) for vm in vms])
        assert outcomes[:3] == [True, True, True]
        assert [reason(outcome) for outcome in outcomes[3:]] == ["BUDGET_SPENT"] * 2
        refused = outcomes[3]
        assert isinstance(refused, ShepherdError)
        assert refused.retry_after == timedelta(minutes=10)
        await desk.clock.advance(timedelta(minutes=10))
        assert await desk.terminate(vms[3]) is True


async def test_the_budget_is_one_for_all_presets() -> None:
    async with a_desk(limits=Limits(terminations=1)) as desk:
        web, db = await desk.vm(preset="web"), await desk.vm(preset="db")
        assert await desk.terminate(web) is True
        assert reason(await desk.terminate(db)) == "BUDGET_SPENT"
        assert desk.lives(db)


@pytest.mark.parametrize(
    ("budget", "facts", "elsewhere"),
    [
        ("terminations_per_zone", {"zone": "az1", "provider": "sim"}, {"availability_zone": "az2"}),
        ("terminations_per_image", {"image": "debian"}, {"image": "alpine"}),
    ],
)
async def test_a_budget_of_a_zone_or_an_image_names_it_and_spares_the_others(
    budget: str, facts: dict[str, str], elsewhere: dict[str, str]
) -> None:
    async with a_desk(limits=Limits.model_validate({budget: 2})) as desk:
        place = {"availability_zone": "az1", "image": "debian"}
        vms = await desk.vms(3, **place)
        other = await desk.vm(**{**place, **elsewhere})
        *passed, refused = await desk.terminate_all([mutation(vm) for vm in vms])
        assert passed == [True, True]
        assert isinstance(refused, Throttled)
        assert refused.facts == {"budget": budget, "limit": "2", **facts}
        assert f"iaas.limits.{budget}" in refused.message
        assert refused.retry_after == timedelta(minutes=10)
        assert desk.lives(vms[2])
        assert await desk.terminate(other) is True
        await desk.clock.advance(timedelta(minutes=10))
        assert await desk.terminate(vms[2]) is True


async def test_a_budget_of_a_provider_is_one_for_all_its_zones() -> None:
    async with a_desk(limits=Limits(terminations_per_provider=1)) as desk:
        one, two = [await desk.vm(availability_zone=zone) for zone in ("az1", "az2")]
        assert await desk.terminate(one) is True
        refused = await desk.terminate(two)
        assert isinstance(refused, Throttled)
        assert refused.facts["provider"] == "sim"
        assert desk.lives(two)


async def test_a_rebuild_spends_what_may_be_destroyed() -> None:
    async with a_desk(limits=Limits(terminations=2)) as desk:
        vms = await desk.vms(3)
        results = await desk.rebuild(*(mutation(vm) for vm in vms))
        refused = [status.from_proto(result.status) for result in results]
        assert refused[:2] == [None, None]
        assert reason(refused[2]) == "BUDGET_SPENT"
        assert reason(await desk.terminate(vms[2])) == "BUDGET_SPENT"
        assert desk.lives(vms[2])


async def test_reboots_spend_nothing_but_their_own_budget() -> None:
    async with a_desk(limits=Limits(terminations=1, reboots=2)) as desk:
        vm = await desk.vm()
        outcomes = await desk.reboot(*[mutation(vm)] * 3)
        assert outcomes[:2] == [None, None]
        refused = outcomes[2]
        assert isinstance(refused, Throttled)
        assert (refused.reason, refused.facts["budget"]) == ("BUDGET_SPENT", "reboots")
        assert await desk.terminate(vm) is True


async def test_what_the_cloud_itself_ended_costs_nothing() -> None:
    async with a_desk(limits=Limits(terminations=1)) as desk:
        vms = await desk.vms(5)
        for vm in vms[:4]:
            desk.world.kill(vm.vm_id)
        for vm in vms[:4]:
            assert await desk.terminate(vm, reason=pb.MUTATION_REASON_DEAD) is True
        assert await desk.terminate(vms[4]) is True


async def test_what_is_called_dead_and_runs_costs_as_much_as_any() -> None:
    async with a_desk(limits=Limits(terminations=1)) as desk:
        vms = await desk.vms(2)
        assert await desk.terminate(vms[0], reason=pb.MUTATION_REASON_DEAD) is True
        assert reason(await desk.terminate(vms[1], reason=pb.MUTATION_REASON_DEAD)) == (
            "BUDGET_SPENT"
        )


async def test_many_attempts_at_one_vm_cost_one() -> None:
    async with a_desk(limits=Limits(terminations=2)) as desk:
        stuck, other = await desk.vms(2)
        desk.world.undeletable(stuck.vm_id)
        for _ in range(5):
            assert isinstance(await desk.terminate(stuck), Unavailable)
        assert await desk.terminate(other) is True
        assert isinstance(await desk.terminate(stuck), Unavailable), "it is paid for already"


async def test_an_operator_needs_force_to_pass_over_the_budget() -> None:
    async with a_desk(limits=Limits(terminations=1)) as desk:
        vms = await desk.vms(2)
        await desk.terminate(vms[0])
        operator = {"reason": pb.MUTATION_REASON_OPERATOR}
        assert reason(await desk.terminate(vms[1], **operator)) == "BUDGET_SPENT"
        assert await desk.terminate(vms[1], **operator, force=True) is True


UNHEALTHY = {"reason": pb.MUTATION_REASON_UNHEALTHY, "evidence": "3 probes failed"}


async def test_when_too_many_are_unhealthy_the_breaker_opens() -> None:
    async with a_desk() as desk:
        vms = await desk.vms(20)
        await desk.listing()
        outcomes = [await desk.terminate(vm, **UNHEALTHY) for vm in vms[:7]]
        assert outcomes[:5] == [True] * 5
        assert [reason(outcome) for outcome in outcomes[5:]] == ["BREAKER_OPEN"] * 2
        assert await desk.terminate(vms[7]) is True, "other reasons are not concerned"
        await desk.clock.advance(timedelta(minutes=10))
        assert await desk.terminate(vms[8], **UNHEALTHY) is True


async def test_a_few_unhealthy_among_many_open_no_breaker() -> None:
    async with a_desk() as desk:
        vms = await desk.vms(100)
        await desk.listing()
        outcomes = [await desk.terminate(vm, **UNHEALTHY) for vm in vms[:15]]
        assert outcomes == [True] * 15


async def test_rebuilds_open_the_breaker_and_reboots_do_not() -> None:
    async with a_desk() as desk:
        vms = await desk.vms(20)
        await desk.listing()
        rebooted = await desk.reboot(*(mutation(vm, **UNHEALTHY) for vm in vms[:10]))
        assert rebooted == [None] * 10
        results = await desk.rebuild(*(mutation(vm, **UNHEALTHY) for vm in vms[:6]))
        refused = [status.from_proto(result.status) for result in results]
        assert refused[:5] == [None] * 5
        assert reason(refused[5]) == "BREAKER_OPEN"
        assert reason(await desk.terminate(vms[6], **UNHEALTHY)) == "BREAKER_OPEN"
        [rebooted_no_more] = await desk.reboot(mutation(vms[7], **UNHEALTHY))
        assert reason(rebooted_no_more) == "BREAKER_OPEN"


async def test_without_any_listing_the_breaker_supposes_the_worst() -> None:
    async with a_desk() as desk:
        vms = await desk.vms(100)
        outcomes = [await desk.terminate(vm, **UNHEALTHY) for vm in vms[:6]]
        assert reason(outcomes[5]) == "BREAKER_OPEN"


# Time, and whoever goes away.


class Held(SimulatedCloud):
    """A cloud whose creates and reads begin and then wait until they are let go."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begun = asyncio.Queue[str]()
        self.go = asyncio.Event()
        self.holds: Callable[[str], bool] = lambda _: True
        self.refusal: ShepherdError | None = None

    async def create(self, order: Order) -> Vm:
        await self._hold(order.name)
        return await super().create(order)

    async def get(self, vm_ids: Sequence[VmId]) -> Sequence[Vm | ShepherdError]:
        await self._hold(vm_ids[0])
        return await super().get(vm_ids)

    async def terminate(self, vm: Vm) -> bool:
        await self._hold("terminate")
        if self.refusal:
            raise self.refusal
        return await super().terminate(vm)

    async def _hold(self, what: str) -> None:
        if self.holds(what):
            self.begun.put_nowait(what)
            await self.go.wait()


@asynccontextmanager
async def a_held_desk(**options: Any) -> AsyncIterator[tuple[Desk, Held]]:
    clock = FakeClock()
    async with (
        simulated(clock, Held) as cloud,
        serving(cloud, cloud.world, clock, **options) as desk,
    ):
        assert isinstance(cloud, Held)
        yield desk, cloud


async def test_a_mutation_with_too_little_time_is_refused_as_a_whole(desk: Desk) -> None:
    vm = await desk.vm()
    for deadline in (timedelta(milliseconds=900), timedelta(milliseconds=300)):
        with pytest.raises(Refused) as refusal:
            await desk.terminate_all([mutation(vm)], deadline=deadline)
        assert refusal.value.reason == "DEADLINE_TOO_SHORT"
    request = pb.CreateVmsRequest(provider="sim", creates=[desk.wish()])
    with pytest.raises(Refused):
        await dial.ask(desk.stub.CreateVms, request, deadline=timedelta(milliseconds=900))
    assert [v.vm_id for v in desk.world.vms] == [vm.vm_id]


async def test_a_caller_without_a_deadline_is_served(desk: Desk) -> None:
    # The stub knows no default deadline when it is asked past `dial`.
    call = desk.stub.CreateVms(
        pb.CreateVmsRequest(provider="sim", creates=[desk.wish()]), timeout=3600
    )
    assert [result.status.code for result in (await call).results] == [0]


async def test_what_waited_too_long_for_its_turn_is_not_begun() -> None:
    async with a_held_desk(parallel_calls=1) as (desk, cloud):
        asked = asyncio.create_task(desk.create(desk.wish(), desk.wish()))
        await cloud.begun.get()
        await desk.clock.advance(timedelta(seconds=9, milliseconds=500))
        cloud.go.set()
        first, second = await asked
        assert first.status.code == 0
        assert reason(status.from_proto(second.status)) == "DEADLINE_TOO_SHORT"
        assert len(desk.world.vms) == 1


async def test_a_create_that_would_take_longer_than_its_caller_waits_is_not_begun() -> None:
    async with a_held_desk(parallel_calls=1) as (desk, cloud):
        asked = asyncio.create_task(desk.create(desk.wish(), desk.wish(), desk.wish()))
        for _ in ("first", "second"):
            await cloud.begun.get()
            await desk.clock.advance(timedelta(seconds=4))
            cloud.go.set()
            cloud.go.clear()
        first, second, third = await asked
        assert [first.status.code, second.status.code] == [0, 0]
        assert reason(status.from_proto(third.status)) == "DEADLINE_TOO_SHORT"
        assert len(desk.world.vms) == 2


async def test_a_vm_whose_turn_came_too_late_is_not_even_read() -> None:
    async with a_held_desk(parallel_calls=1) as (desk, cloud):
        cloud.holds = lambda _: False
        first, second = await desk.vm(), await desk.vm()
        cloud.holds = lambda _: True
        asked = asyncio.create_task(desk.terminate_all([mutation(first), mutation(second)]))
        assert await cloud.begun.get() == first.vm_id
        await desk.clock.advance(timedelta(seconds=9, milliseconds=500))
        cloud.go.set()
        assert [reason(each) for each in await asked] == ["DEADLINE_TOO_SHORT"] * 2
        assert cloud.begun.empty()
        assert desk.lives(first)
        assert desk.lives(second)


async def test_a_newer_token_that_comes_while_one_waits_is_honoured() -> None:
    async with a_held_desk(parallel_calls=1) as (desk, cloud):
        asked = asyncio.create_task(desk.create(desk.wish(), desk.wish()))
        await cloud.begun.get()
        await desk.listing(held=[pb.PresetToken(preset="web", fencing_token=2)])
        cloud.go.set()
        first, second = await asked
        assert first.status.code == 0, "it was on its way already"
        assert reason(status.from_proto(second.status)) == "STALE_FENCING_TOKEN"
        assert len(desk.world.vms) == 1


async def test_a_newer_token_that_comes_while_the_vm_is_read_is_honoured() -> None:
    async with a_held_desk() as (desk, cloud):
        cloud.holds = lambda _: False
        vm = await desk.vm()
        cloud.holds = lambda _: True
        asked = asyncio.create_task(desk.terminate(vm))
        await cloud.begun.get()
        await desk.listing(held=[pb.PresetToken(preset="web", fencing_token=2)])
        cloud.go.set()
        assert reason(await asked) == "STALE_FENCING_TOKEN"
        assert desk.lives(vm)


async def test_a_reading_that_took_all_the_time_is_followed_by_nothing() -> None:
    async with a_held_desk() as (desk, cloud):
        cloud.holds = lambda _: False
        vm = await desk.vm()
        cloud.holds = lambda _: True
        asked = asyncio.create_task(desk.terminate(vm))
        await cloud.begun.get()
        await desk.clock.advance(timedelta(seconds=9, milliseconds=500))
        cloud.go.set()
        assert reason(await asked) == "DEADLINE_TOO_SHORT"
        assert desk.lives(vm)


async def test_a_vm_that_is_read_slowly_is_terminated_all_the_same_though_that_was_slow_once() -> (
    None
):
    async with a_held_desk() as (desk, cloud):
        cloud.holds = lambda _: False
        slow, vm = await desk.vm(), await desk.vm()
        cloud.holds = lambda what: what == "terminate"
        asked = asyncio.create_task(desk.terminate(slow))
        await cloud.begun.get()
        await desk.clock.advance(timedelta(seconds=9))
        cloud.go.set()
        assert await asked is True
        cloud.holds = lambda what: what == vm.vm_id
        for _ in range(20):
            cloud.go.clear()
            asked = asyncio.create_task(desk.terminate(vm))
            await cloud.begun.get()
            await desk.clock.advance(timedelta(seconds=6))
            cloud.go.set()
            if await asked is True:
                break
        assert not desk.lives(vm)


async def test_what_was_sent_is_done_when_its_caller_goes_and_what_waits_is_not() -> None:
    async with a_held_desk(parallel_calls=1) as (desk, cloud):
        request = pb.CreateVmsRequest(provider="sim", creates=[desk.wish(), desk.wish()])
        call = desk.stub.CreateVms(request, timeout=10)
        sent = await cloud.begun.get()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        later = asyncio.create_task(desk.vm())
        await desk.listing()  # the server has heard of the cancellation and of the next by now
        assert cloud.begun.empty(), "the only slot is taken by what is on its way"
        cloud.go.set()
        made = await later
        assert [vm.name for vm in desk.world.vms] == [sent, made.name]


async def left_terminating(desk: Desk, cloud: Held, vm: vm_pb2.Vm) -> None:
    """A termination that is on its way to the cloud when its caller goes."""
    request = pb.TerminateVmsRequest(provider="sim", terminations=[mutation(vm)])
    call = desk.stub.TerminateVms(request, timeout=10)
    await cloud.begun.get()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await desk.listing()  # the server has heard of the cancellation by now


async def test_a_termination_that_was_sent_is_done_when_its_caller_goes() -> None:
    async with a_held_desk() as (desk, cloud):
        cloud.holds = lambda what: what == "terminate"
        vm = await desk.vm()
        await left_terminating(desk, cloud, vm)
        with cloud.watch() as changes:
            cloud.go.set()
            async with asyncio.timeout(10):
                await changes.next()
        assert not desk.lives(vm)


async def test_the_failure_of_what_was_sent_is_no_alarm_when_its_caller_went() -> None:
    alarms: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: alarms.append(told))
    async with a_held_desk() as (desk, cloud):
        cloud.holds = lambda what: what == "terminate"
        cloud.refusal = Unavailable("away")
        vm = await desk.vm()
        await left_terminating(desk, cloud, vm)
        cloud.go.set()
    gc.collect()
    assert not alarms


async def answered_in_time(desk: Desk, request: pb.CreateVmsRequest) -> pb.CreateVmsResponse:
    """The answer has a tenth of a second for its way: on a busy machine that may be too little."""
    while True:
        try:
            return await dial.ask(desk.stub.CreateVms, request, deadline=timedelta(seconds=1.5))
        except OutcomeUnknown:
            continue


async def test_a_create_that_takes_too_long_is_unknown_and_the_others_are_told() -> None:
    async with a_held_desk() as (desk, cloud):
        slow, quick = desk.wish(), desk.wish()
        cloud.holds = lambda name: name == slow.name
        request = pb.CreateVmsRequest(provider="sim", creates=[slow, quick])
        unknown, made = (await answered_in_time(desk, request)).results
        assert isinstance(status.from_proto(unknown.status), OutcomeUnknown)
        assert made.vm.name == quick.name


async def test_a_create_repeated_while_it_runs_is_done_once_even_without_idempotency() -> None:
    clock = FakeClock()
    async with (
        simulated(clock, Held, idempotent=False) as cloud,
        serving(cloud, cloud.world, clock) as desk,
    ):
        assert isinstance(cloud, Held)
        wish = desk.wish()
        first = asyncio.create_task(desk.create(wish))
        await cloud.begun.get()
        second = asyncio.create_task(desk.create(wish))
        other = asyncio.create_task(desk.create(desk.wish()))
        await cloud.begun.get()  # the other one began, so the repeat had its turn
        cloud.go.set()
        [[one], [two], _] = await asyncio.gather(first, second, other)
        assert one.vm.vm_id == two.vm.vm_id
        assert len(desk.world.vms) == 2


async def test_a_create_whose_answer_was_lost_is_not_made_twice_by_a_retry() -> None:
    async with a_desk(idempotent=False) as desk:
        wish = desk.wish()
        [one] = await desk.create(wish)
        [two] = await desk.create(wish)
        assert one.vm.vm_id == two.vm.vm_id
        desk.world.vanish(one.vm.vm_id)
        [three] = await desk.create(wish)
        assert three.vm.vm_id != one.vm.vm_id


@pytest.mark.parametrize("late", ["STALE_FENCING_TOKEN", "DEADLINE_TOO_SHORT"])
async def test_a_repeated_create_is_not_sent_when_to_look_for_the_first_one_took_too_long(
    late: str,
) -> None:
    async with a_held_desk() as (desk, cloud):
        cloud.holds = lambda _: False
        wish = desk.wish()
        [one] = await desk.create(wish)
        desk.world.vanish(one.vm.vm_id)
        cloud.holds = lambda what: what == one.vm.vm_id
        asked = asyncio.create_task(desk.create(wish))
        await cloud.begun.get()
        if late == "STALE_FENCING_TOKEN":
            await desk.listing(held=[pb.PresetToken(preset="web", fencing_token=2)])
        else:
            await desk.clock.advance(timedelta(seconds=9, milliseconds=500))
        cloud.go.set()
        [two] = await asked
        assert reason(status.from_proto(two.status)) == late
        assert not desk.world.vms


# Creating.


async def test_each_create_answers_on_its_own_and_in_order() -> None:
    async with a_desk(quota=2) as desk:
        nameless = pb.VmCreate(**{**_fields(desk.wish()), "name": ""})
        results = await desk.create(desk.wish(), nameless, desk.wish(), desk.wish())
        outcomes = [status.from_proto(result.status) for result in results]
        assert outcomes[0] is None
        assert isinstance(outcomes[1], BadRequest)
        assert outcomes[2] is None
        assert isinstance(outcomes[3], QuotaExceeded)
        assert [bool(result.vm.vm_id) for result in results] == [True, False, True, False]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"request_id": "not-a-uuid"}, "request_id"),
        ({"request_id": "6D1C3A1E-6C3F-4B0A-9D6E-5A2F4F0F2C11"}, "request_id"),
        ({"preset": "a/b"}, "preset"),
        ({"preset": ""}, "preset"),
        ({"name": "n" * 256}, "name"),
        ({"spec": vm_pb2.VmSpec(user_data="x" * 65_537)}, "spec.user_data"),
        ({"spec": vm_pb2.VmSpec(metadata={marker.SUITE: "x"})}, f"spec.metadata.{marker.SUITE}"),
        ({"spec": vm_pb2.VmSpec(metadata={"vmshepherd_x": "1"})}, "spec.metadata.vmshepherd_x"),
        ({"spec": vm_pb2.VmSpec(metadata={"key": "v" * 256})}, "spec.metadata.key"),
    ],
)
async def test_a_wish_that_makes_no_sense_names_its_field(
    desk: Desk, change: dict[str, Any], field: str
) -> None:
    [result] = await desk.create(pb.VmCreate(**{**_fields(desk.wish()), **change}))
    error = status.from_proto(result.status)
    assert isinstance(error, BadRequest)
    assert [violation.field for violation in error.violations] == [field]
    assert desk.world.vms == []


async def test_the_same_request_for_another_vm_is_refused(desk: Desk) -> None:
    wish = desk.wish()
    other = pb.VmCreate(**{**_fields(wish), "spec": vm_pb2.VmSpec(flavor="large")})
    await desk.create(wish)
    [result] = await desk.create(other)
    assert reason(status.from_proto(result.status)) == "REQUEST_ID_REUSED"


async def test_a_vm_made_by_a_create_that_failed_is_found_by_its_request(desk: Desk) -> None:
    desk.world.accepted_but_503()
    wish = desk.wish()
    [result] = await desk.create(wish)
    assert isinstance(status.from_proto(result.status), OutcomeUnknown)
    [vm] = (await desk.listing()).vms
    assert vm.marker.request_id == wish.request_id


async def test_a_driver_that_breaks_spoils_one_item_and_tells_no_secrets() -> None:
    class Broken(SimulatedCloud):
        async def create(self, order: Order) -> Vm:
            if order.name == "web-1":
                raise ValueError("password=hunter2")
            return await super().create(order)

    clock = FakeClock()
    async with (
        simulated(clock, Broken) as cloud,
        serving(cloud, cloud.world, clock) as desk,
    ):
        broken, made = await desk.create(desk.wish(), desk.wish())
        error = status.from_proto(broken.status)
        assert isinstance(error, OutcomeUnknown)
        assert "hunter2" not in str(broken)
        assert made.vm.name == "web-2"


# Listing.


async def test_pages_continue_one_reading(desk: Desk) -> None:
    vms = await desk.vms(5)
    first = await desk.listing(page_size=2)
    await desk.vms(3)
    second = await desk.listing(page_size=2, page_token=first.next_page_token)
    third = await desk.listing(page_size=2, page_token=second.next_page_token)
    listed = [vm.vm_id for page in (first, second, third) for vm in page.vms]
    assert listed == sorted(vm.vm_id for vm in vms)
    assert third.next_page_token == ""
    assert len((await desk.listing()).vms) == 8


async def test_a_page_that_comes_too_late_says_so(desk: Desk) -> None:
    await desk.vms(3)
    first = await desk.listing(page_size=2)
    await desk.clock.advance(timedelta(seconds=60))
    with pytest.raises(ResumeTokenTooOld):
        await desk.listing(page_size=2, page_token=first.next_page_token)


async def test_a_page_token_that_was_made_up_is_refused(desk: Desk) -> None:
    with pytest.raises(BadRequest):
        await desk.listing(page_token="anything")


async def test_a_listing_of_some_presets_tells_nothing_of_the_others(desk: Desk) -> None:
    await desk.vm(preset="web", token=3)
    await desk.vm(preset="db", token=5)
    listing = await desk.listing(presets=["db"])
    assert [vm.marker.preset for vm in listing.vms] == ["db"]
    assert dict(listing.token_floors) == {"db": 5}


async def test_a_listing_shows_only_what_bears_our_marker(desk: Desk) -> None:
    ours, foreign = await desk.vms(2)
    desk.world.relabel(foreign.vm_id, **{marker.SUITE: "another"})
    assert [vm.vm_id for vm in (await desk.listing()).vms] == [ours.vm_id]


async def test_an_incomplete_listing_says_so_and_why(desk: Desk) -> None:
    await desk.vms(4)
    assert (await desk.listing()).complete
    desk.world.cell_down()
    listing = await desk.listing()
    assert not listing.complete
    assert listing.incomplete_reason == "a cell is down"
    assert len(listing.vms) == 2


async def test_metadata_are_shown_without_the_marker(desk: Desk) -> None:
    vm = await desk.vm(metadata={"team": "search"})
    assert dict(vm.metadata) == {"team": "search"}
    assert vm.marker.suite_id == "wire"


@pytest.mark.parametrize("text", ["1900000000", "2030-03-17T17:46:40Z", "2030-03-17 17:46:40"])
async def test_an_announced_shutdown_is_read(desk: Desk, text: str) -> None:
    vm = await desk.vm(metadata={marker.TIMED_SHUTDOWN: text})
    assert vm.timed_shutdown_time.ToDatetime(UTC) == datetime(2030, 3, 17, 17, 46, 40, tzinfo=UTC)


@pytest.mark.parametrize("text", ["soon", "1e999", "nan", "99999999999999", "-inf"])
async def test_a_shutdown_time_that_is_none_spoils_no_listing(desk: Desk, text: str) -> None:
    vm = await desk.vm(metadata={marker.TIMED_SHUTDOWN: text})
    sound = await desk.vm()
    listing = await desk.listing()
    by_id = {listed.vm_id: listed for listed in listing.vms}
    assert by_id.keys() == {vm.vm_id, sound.vm_id}
    assert not by_id[vm.vm_id].HasField("timed_shutdown_time")
    assert marker.TIMED_SHUTDOWN in by_id[vm.vm_id].fault


# Reading, offering, telling.


async def test_vms_are_read_by_id_marked_or_not(desk: Desk) -> None:
    ours, foreign = await desk.vms(2)
    desk.world.relabel(foreign.vm_id, **{marker.SUITE: ""})
    request = pb.GetVmsRequest(provider="sim", vm_ids=[foreign.vm_id, "nothing", ours.vm_id])
    results = (await dial.ask(desk.stub.GetVms, request)).results
    assert not results[0].vm.HasField("marker")
    assert isinstance(status.from_proto(results[1].status), NotFound)
    assert results[2].vm.marker.preset == "web"


@pytest.mark.parametrize("number", [0, 1001])
async def test_a_batch_of_none_or_too_many_is_refused(desk: Desk, number: int) -> None:
    many = [desk.wish() for _ in range(number)]
    with pytest.raises(BadRequest):
        await desk.create(*many)
    with pytest.raises(BadRequest):
        await desk.terminate_all([pb.VmMutation()] * number)
    request = pb.GetVmsRequest(provider="sim", vm_ids=["x"] * number)
    with pytest.raises(BadRequest):
        await dial.ask(desk.stub.GetVms, request)
    assert desk.world.vms == []


async def test_an_unknown_provider_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound) as refusal:
        await dial.ask(desk.stub.ListVms, pb.ListVmsRequest(provider="moon"))
    assert "sim" in refusal.value.message


async def test_providers_are_listed_in_order_with_what_they_can_do() -> None:
    clock = FakeClock()
    clouds = {"ec2": simulated(clock), "nova": simulated(clock, idempotent=False)}
    providers = [
        Provider.of(name, "simulated", cloud, suite_id="wire") for name, cloud in clouds.items()
    ]
    servicer = IaasServicer(providers, suite_id="wire", clock=clock, chance=SeededChance(3))
    async with testing.served([mount(servicer)]) as channel:
        stub = IaasServiceStub(channel)
        first = await dial.ask(stub.ListProviders, pb.ListProvidersRequest(page_size=1))
        again = pb.ListProvidersRequest(page_token=first.next_page_token)
        second = await dial.ask(stub.ListProviders, again)
    [ec2], [nova] = first.providers, second.providers
    assert (ec2.name, nova.name, second.next_page_token) == ("ec2", "nova", "")
    assert vm_pb2.PROVIDER_TRAIT_IDEMPOTENT_CREATE in ec2.traits
    assert not ec2.HasField("unknown_outcome_horizon")
    assert vm_pb2.PROVIDER_TRAIT_IDEMPOTENT_CREATE not in nova.traits
    assert nova.unknown_outcome_horizon.seconds == 120
    assert first.suite_id == "wire"


async def test_the_catalog_comes_in_pages_and_the_quotas_once(desk: Desk) -> None:
    await desk.vm()
    request = pb.ListCatalogRequest(provider="sim", page_size=3)
    first = await dial.ask(desk.stub.ListCatalog, request)
    request.page_token = first.next_page_token
    second = await dial.ask(desk.stub.ListCatalog, request)
    names = [entry.name for page in (first, second) for entry in page.entries]
    assert names == ["simulated", "large", "small", "simulated"]
    assert [(quota.resource, quota.used) for quota in first.quotas] == [("vms", 1)]
    assert not second.quotas


async def test_reboot_passes_the_same_gates(desk: Desk) -> None:
    vm = await desk.vm()
    sound, stale = mutation(vm), mutation(vm, preset="db")
    request = pb.RebootVmsRequest(provider="sim", reboots=[sound, stale])
    results = (await dial.ask(desk.stub.RebootVms, request)).results
    assert results[0].vm.vm_id == vm.vm_id
    assert reason(status.from_proto(results[1].status)) == "NOT_OURS"


async def test_rebuild_passes_the_same_gates(desk: Desk) -> None:
    vm, protected = await desk.vm(), await desk.vm(metadata={marker.PROTECTED: "true"})
    request = pb.RebuildVmsRequest(
        provider="sim",
        rebuilds=[mutation(vm), mutation(protected)],
        spec=vm_pb2.VmSpec(image="debian-13"),
    )
    results = (await dial.ask(desk.stub.RebuildVms, request)).results
    assert results[0].vm.image == "debian-13"
    assert reason(status.from_proto(results[1].status)) == "PROTECTED"


async def test_a_rebuilt_vm_is_of_the_spec_that_it_was_rebuilt_from(desk: Desk) -> None:
    vm = await desk.vm(token=7, image="debian", metadata={marker.PROTECTED: "no"})
    [result] = await desk.rebuild(mutation(vm, fencing_token=8), spec_hash="77aa")
    assert result.vm.marker.spec_hash == "77aa"
    [listed] = (await desk.listing()).vms
    was = vm.marker
    was.spec_hash = "77aa"
    assert (listed.marker, listed.image) == (was, "debian-13")
    assert (listed.vm_id, listed.create_time) == (vm.vm_id, vm.create_time)
    assert dict(listed.metadata) == dict(vm.metadata)
    assert await desk.terminate(listed, fencing_token=8) is True


async def test_a_rebuild_that_tells_no_hash_and_no_image_leaves_them(desk: Desk) -> None:
    vm = await desk.vm(image="debian")
    [result] = await desk.rebuild(mutation(vm), image="")
    assert (result.vm.marker, result.vm.image) == (vm.marker, "debian")


async def test_a_rebuild_from_what_no_vm_can_be_made_of_is_refused(desk: Desk) -> None:
    vm = await desk.vm()
    with pytest.raises(BadRequest) as refusal:
        await desk.rebuild(mutation(vm), spec_hash="x" * 256)
    assert [violation.field for violation in refusal.value.violations] == ["spec_hash"]


async def test_a_gone_vm_cannot_be_rebooted(desk: Desk) -> None:
    vm = await desk.vm()
    desk.world.vanish(vm.vm_id)
    request = pb.RebootVmsRequest(provider="sim", reboots=[mutation(vm)])
    [result] = (await dial.ask(desk.stub.RebootVms, request)).results
    assert isinstance(status.from_proto(result.status), NotFound)


# Consoles.


async def test_consoles_are_shown_where_they_are_asked_for(desk: Desk) -> None:
    vm, other = await desk.vms(2)
    desk.world.say(vm.vm_id, "booting\n\x1b[31mkernel panic\x1b[0m\nnot syncing\n")
    asked = await desk.get(vm.vm_id, "nothing", other.vm_id, lines=2)
    assert [result.console for result in asked] == ["kernel panic\nnot syncing", "", ""]
    assert isinstance(status.from_proto(asked[1].status), NotFound)
    [unasked] = await desk.get(vm.vm_id)
    assert unasked.console == ""


@pytest.mark.parametrize("lines", [-1, 201])
async def test_a_number_of_lines_that_nobody_shows_is_refused(desk: Desk, lines: int) -> None:
    vm = await desk.vm()
    with pytest.raises(BadRequest) as refusal:
        await desk.get(vm.vm_id, lines=lines)
    assert [violation.field for violation in refusal.value.violations] == ["console_lines"]


async def test_no_console_is_asked_of_a_driver_that_has_none() -> None:
    async with a_desk(lacks={Lack.CONSOLE}) as desk:
        vm = await desk.vm()
        desk.world.say(vm.vm_id, "kernel panic\n")
        [result] = await desk.get(vm.vm_id, lines=200)
        assert (result.vm.vm_id, result.console) == (vm.vm_id, "")


class Mute(SimulatedCloud):
    """A cloud whose consoles fail or never answer."""

    error: ShepherdError | None = None

    async def console(self, vm: Vm, lines: int) -> str:
        if self.error:
            raise self.error
        await asyncio.Event().wait()
        return "it was waited for"


@pytest.mark.parametrize("error", [None, Unavailable("no console at present"), NotFound("gone")])
async def test_a_console_that_fails_or_hangs_hides_no_vm(error: ShepherdError | None) -> None:
    clock = FakeClock()
    async with simulated(clock, Mute) as cloud, serving(cloud, cloud.world, clock) as desk:
        assert isinstance(cloud, Mute)
        cloud.error = error
        vm = await desk.vm()
        [result] = await desk.get(vm.vm_id, lines=5, deadline=timedelta(seconds=1))
        assert result.status.code == 0
        assert (result.vm.vm_id, result.console) == (vm.vm_id, "")


async def test_consoles_of_many_vms_fit_into_one_answer(desk: Desk) -> None:
    vms = await desk.vms(100)
    for vm in vms:
        desk.world.say(vm.vm_id, "é" * 20_000)
    results = await desk.get(*(vm.vm_id for vm in vms), lines=1)
    assert [len(result.console.encode()) for result in results] == [16 * 1024] * 64 + [0] * 36
    assert all(result.vm.vm_id for result in results)


class Deaf(SimulatedCloud):
    traits = frozenset({Trait.IDEMPOTENT_CREATE})


async def test_what_a_driver_cannot_do_is_said_at_once() -> None:
    clock = FakeClock()
    async with simulated(clock, Deaf) as cloud, serving(cloud, cloud.world, clock) as desk:
        vm = await desk.vm()
        request = pb.RebootVmsRequest(provider="sim", reboots=[mutation(vm)])
        with pytest.raises(Unsupported):
            await dial.ask(desk.stub.RebootVms, request)
        with pytest.raises(Unsupported) as refusal:
            async for _ in dial.listen(desk.stub.WatchVms, pb.WatchVmsRequest(provider="sim")):
                pass
        assert refusal.value.reason == "EVENTS_UNSUPPORTED"


async def test_a_watcher_hears_first_that_it_is_heard_then_of_changes(desk: Desk) -> None:
    watched = dial.listen(desk.stub.WatchVms, pb.WatchVmsRequest(provider="sim"))
    async with asyncio.timeout(10), aclosing(watched) as messages:
        assert (await anext(messages)).HasField("bookmark")
        vm = await desk.vm()
        changed = await anext(messages)
        assert [told.vm_id for told in changed.changed.vms] == [vm.vm_id]
        desk.world.vanish(vm.vm_id)
        gone = await anext(messages)
        assert [(told.vm_id, told.preset) for told in gone.gone.vms] == [(vm.vm_id, "web")]


async def test_a_watcher_hears_nothing_of_strangers(desk: Desk) -> None:
    vm, foreign = await desk.vms(2)
    desk.world.relabel(foreign.vm_id, **{marker.SUITE: "another"})
    watched = dial.listen(desk.stub.WatchVms, pb.WatchVmsRequest(provider="sim"))
    async with asyncio.timeout(10), aclosing(watched) as messages:
        await anext(messages)
        desk.world.kill(foreign.vm_id)
        desk.world.kill(vm.vm_id)
        changed = await anext(messages)
        assert [told.vm_id for told in changed.changed.vms] == [vm.vm_id]


async def test_many_changes_come_in_messages_of_a_hundred(desk: Desk) -> None:
    watched = dial.listen(desk.stub.WatchVms, pb.WatchVmsRequest(provider="sim"))
    async with asyncio.timeout(10), aclosing(watched) as messages:
        await anext(messages)
        await desk.vms(250)
        told: list[int] = []
        while sum(told) < 250:
            told.append(len((await anext(messages)).changed.vms))
        assert max(told) <= 100


def _fields(message: Any) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}
