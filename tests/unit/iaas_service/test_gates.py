"""The limits at the gates: which deed spends which budget, and what opens the breaker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from iaas_service.domain import Deed, Mutation, Reason, Vm, VmId, VmState
from iaas_service.gates import Gates, Limits
from iaas_service.tokens import TokenFloors
from vmshepherd_kit.errors import Refused, Throttled

MADE = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Gate:
    """Gates with a clock of their own, and VMs on demand."""

    def __init__(self, **limits: Any) -> None:
        self.gates = Gates(Limits(**limits), TokenFloors(), suite_id="s")
        self.now = 0 * MINUTE
        self._number = 0

    def vm(self, *, zone: str = "az1", image: str = "debian", **told: Any) -> Vm:
        self._number += 1
        return Vm(
            vm_id=VmId(f"vm-{self._number}"),
            name="web",
            state=told.pop("state", VmState.RUNNING),
            create_time=MADE,
            metadata={},
            zone=zone,
            image=image,
        )

    def do(
        self,
        deed: Deed = Deed.TERMINATE,
        vm: Vm | None = None,
        *,
        provider: str = "nova",
        reason: Reason = Reason.SURPLUS,
        force: bool = False,
    ) -> None:
        vm = vm or self.vm()
        mutation = Mutation(
            vm_id=vm.vm_id,
            preset="web",
            fencing_token=1,
            create_time=MADE,
            reason=reason,
            evidence="e",
            force=force,
        )
        self.gates.pass_limits(provider, mutation, vm, self.now, deed=deed)

    def refused(self, deed: Deed = Deed.TERMINATE, vm: Vm | None = None, **told: Any) -> Throttled:
        with pytest.raises(Throttled) as refusal:
            self.do(deed, vm, **told)
        return refusal.value


# Each budget, with what shares it and what does not.
ELSEWHERE: Mapping[str, Callable[[Gate], None]] = {
    "terminations_per_provider": lambda gate: gate.do(provider="ec2"),
    "terminations_per_zone": lambda gate: gate.do(vm=gate.vm(zone="az2")),
    "terminations_per_image": lambda gate: gate.do(vm=gate.vm(image="alpine")),
}
SHARED: Mapping[str, Callable[[Gate], Throttled]] = {
    "terminations": lambda gate: gate.refused(
        vm=gate.vm(zone="az2", image="alpine"), provider="ec2"
    ),
    "terminations_per_provider": lambda gate: gate.refused(vm=gate.vm(zone="az2", image="alpine")),
    "terminations_per_zone": lambda gate: gate.refused(vm=gate.vm(image="alpine")),
    "terminations_per_image": lambda gate: gate.refused(vm=gate.vm(zone="az2"), provider="ec2"),
}
FACTS: Mapping[str, Mapping[str, str]] = {
    "terminations": {},
    "terminations_per_provider": {"provider": "nova"},
    "terminations_per_zone": {"zone": "az1", "provider": "nova"},
    "terminations_per_image": {"image": "debian"},
}


@pytest.mark.parametrize("budget", SHARED)
def test_a_budget_ends_for_those_that_share_it_and_comes_back_with_time(budget: str) -> None:
    gate = Gate(**{budget: 2})
    gate.do()
    gate.now = 4 * MINUTE
    gate.do()
    refusal = SHARED[budget](gate)
    assert refusal.reason == "BUDGET_SPENT"
    assert refusal.facts == {"budget": budget, "limit": "2", **FACTS[budget]}
    assert refusal.retry_after == 6 * MINUTE
    assert f"iaas.limits.{budget}" in refusal.message
    assert all(repr(value) in refusal.message for value in FACTS[budget].values())
    gate.now = 10 * MINUTE
    gate.do()


@pytest.mark.parametrize("budget", ELSEWHERE)
def test_a_budget_that_is_spent_here_is_not_spent_elsewhere(budget: str) -> None:
    gate = Gate(**{budget: 1})
    gate.do()
    gate.refused()
    ELSEWHERE[budget](gate)


def test_zones_of_one_name_in_two_clouds_are_two() -> None:
    gate = Gate(terminations_per_zone=1)
    gate.do()
    gate.do(provider="ec2")


def test_budgets_that_are_not_set_refuse_nothing() -> None:
    gate = Gate(terminations=100)
    for _ in range(100):
        gate.do()
    assert gate.refused().facts["budget"] == "terminations"


def test_of_several_spent_budgets_the_one_that_lasts_longest_is_told() -> None:
    gate = Gate(terminations=2, terminations_per_zone=1)
    gate.do(vm=gate.vm(zone="az2"))
    gate.now = 4 * MINUTE
    gate.do()
    refusal = gate.refused()
    assert (refusal.facts["budget"], refusal.retry_after) == (
        "terminations_per_zone",
        10 * MINUTE,
    )


def test_what_a_gate_refuses_costs_nothing() -> None:
    gate = Gate(terminations=2, terminations_per_zone=1)
    gate.do()
    gate.refused()
    gate.do(vm=gate.vm(zone="az2"))


@pytest.mark.parametrize("deed", Deed)
def test_a_forced_deed_passes_over_each_budget_and_is_counted(deed: Deed) -> None:
    gate = Gate(terminations=1, terminations_per_zone=1, reboots=1)
    for _ in range(2):
        gate.do(deed, reason=Reason.OPERATOR, force=True)
    gate.now = 1 * MINUTE
    assert gate.refused(deed, reason=Reason.OPERATOR).retry_after == 9 * MINUTE


def test_a_rebuild_destroys_a_disk_and_costs_as_much_as_a_termination() -> None:
    gate = Gate(terminations=2)
    gate.do(Deed.REBUILD)
    gate.do(Deed.TERMINATE)
    gate.refused(Deed.REBUILD)
    gate.refused(Deed.TERMINATE)


def test_each_rebuild_of_one_vm_costs_and_its_termination_too() -> None:
    gate = Gate(terminations=2)
    vm = gate.vm()
    gate.do(Deed.REBUILD, vm)
    gate.do(Deed.REBUILD, vm)
    gate.refused(Deed.REBUILD, vm)
    gate.refused(Deed.TERMINATE, vm)


def test_a_repeated_termination_costs_nothing_more() -> None:
    gate = Gate(terminations=1, terminations_per_zone=1)
    vm = gate.vm()
    gate.do(vm=vm)
    gate.do(vm=vm)


def test_reboots_have_a_budget_of_their_own() -> None:
    gate = Gate(terminations=1, terminations_per_zone=1, reboots=2)
    vm = gate.vm()
    gate.do(Deed.REBOOT, vm)
    gate.do(Deed.REBOOT, vm)
    refusal = gate.refused(Deed.REBOOT)
    assert refusal.facts == {"budget": "reboots", "limit": "2"}
    assert "2 VMs were rebooted" in refusal.message
    gate.do(Deed.TERMINATE)


@pytest.mark.parametrize("state", [VmState.TERMINATED, VmState.DELETING])
def test_only_to_remove_what_has_ended_costs_nothing(state: VmState) -> None:
    gate = Gate(terminations=1, reboots=1)
    for _ in range(3):
        gate.do(vm=gate.vm(state=state))
    for deed in (Deed.REBUILD, Deed.REBOOT):
        gate.do(deed, gate.vm(state=state))
        gate.refused(deed, gate.vm(state=state))


def unhealthy(gate: Gate, deed: Deed, vm: Vm | None = None) -> None:
    gate.do(deed, vm, reason=Reason.UNHEALTHY)


@pytest.mark.parametrize("deed", [Deed.TERMINATE, Deed.REBUILD])
def test_vms_that_lost_their_disks_as_unhealthy_open_the_breaker_for_every_deed(deed: Deed) -> None:
    gate = Gate(breaker_count=3)
    for _ in range(3):
        unhealthy(gate, deed)
    for refused in Deed:
        with pytest.raises(Refused, match="no more are") as refusal:
            unhealthy(gate, refused)
        assert refusal.value.reason == "BREAKER_OPEN"
        gate.do(refused)
    gate.now = 10 * MINUTE
    unhealthy(gate, deed)


def test_reboots_bring_the_breaker_no_nearer() -> None:
    gate = Gate(breaker_count=3)
    for _ in range(10):
        unhealthy(gate, Deed.REBOOT)
    unhealthy(gate, Deed.TERMINATE)


def test_a_vm_that_is_rebuilt_and_then_destroyed_counts_for_the_breaker_once() -> None:
    gate = Gate(breaker_count=3)
    for _ in range(2):
        vm = gate.vm()
        unhealthy(gate, Deed.REBUILD, vm)
        unhealthy(gate, Deed.TERMINATE, vm)
    unhealthy(gate, Deed.TERMINATE)


def test_a_vm_that_was_rebuilt_is_not_destroyed_beneath_an_open_breaker() -> None:
    gate = Gate(breaker_count=3)
    vms = [gate.vm() for _ in range(3)]
    for vm in vms:
        unhealthy(gate, Deed.REBUILD, vm)
    with pytest.raises(Refused):
        unhealthy(gate, Deed.TERMINATE, vms[0])


def test_a_termination_that_passed_may_be_repeated_beneath_an_open_breaker() -> None:
    gate = Gate(breaker_count=3)
    vms = [gate.vm() for _ in range(3)]
    for vm in vms:
        unhealthy(gate, Deed.TERMINATE, vm)
    unhealthy(gate, Deed.TERMINATE, vms[0])
