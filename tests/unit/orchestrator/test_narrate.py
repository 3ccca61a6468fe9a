"""What people are told: who ended a VM, and what came and went."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.model import (
    Memory,
    Observation,
    Plan,
    PresetName,
    Refusal,
    Spec,
    VmId,
    VmMemory,
    VmStatus,
)
from orchestrator.narrate import Weight, changes, conditions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VM = VmId("vm-1")
RUNNING = {VM: VmStatus.RUNNING}


def seen(memory: VmMemory | None = None, *, complete: bool = True) -> Observation:
    spec = Spec(name=PresetName("web"), count=1, spec_hash="a")
    vms = {} if memory is None else {VM: memory}
    return Observation(
        now=NOW, spec=spec, fencing_token=1, memory=Memory(vms=vms), complete=complete
    )


def test_a_vm_that_we_had_terminated_is_simply_gone() -> None:
    memory = VmMemory(first_seen=NOW, terminating_since=NOW)
    [told] = changes(RUNNING, seen(memory), Plan())
    assert (told.kind, told.message, told.weight) == ("VM_GONE", "gone", Weight.INFO)


def test_a_vm_that_somebody_else_removed_is_told_as_such() -> None:
    [told] = changes(RUNNING, seen(VmMemory(first_seen=NOW)), Plan())
    assert "not by our doing" in told.message
    assert told.weight is Weight.WARNING


def test_nothing_is_said_to_be_gone_by_a_listing_that_is_not_whole() -> None:
    assert list(changes(RUNNING, seen(complete=False), Plan())) == []


def test_a_condition_is_told_when_it_comes_and_when_it_goes() -> None:
    came = [each.kind for each in conditions([], [Refusal("BACKOFF", "waits")])]
    stays = list(conditions(["BACKOFF"], [Refusal("BACKOFF", "waits longer")]))
    went = [each.kind for each in conditions(["BACKOFF"], [])]
    assert (came, stays, went) == (["CONDITION_SET"], [], ["CONDITION_CLEARED"])
