"""Pure: what happened in a cycle, as events for people and for `explain`.

Before a VM is destroyed its reason and evidence are told; afterwards what became of each step, what
changed about VMs, and which conditions came and went. User data never appear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from .model import (
    Create,
    Fate,
    Judged,
    Observation,
    Outcome,
    Plan,
    Refusal,
    Terminate,
    VmId,
    VmMemory,
    VmStatus,
)


class Weight(Enum):
    """How much an event matters to people."""

    INFO = auto()
    WARNING = auto()
    ERROR = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """One event, without its id, time and writer."""

    kind: str
    message: str
    reason: str = ""
    vm_id: str = ""
    weight: Weight = Weight.INFO
    evidence: Mapping[str, str] = field(default_factory=dict)


_WEIGHTS = {
    VmStatus.UNHEALTHY: Weight.WARNING,
    VmStatus.ERROR: Weight.WARNING,
    VmStatus.TERMINATED: Weight.WARNING,
}


def announce(step: Create | Terminate) -> Telling:
    """What is about to be done, told before it is done."""
    if isinstance(step, Create):
        attempt = step.intent.attempts + 1
        return Telling(
            kind="VM_CREATING",
            reason=step.reason,
            message=f"creating {step.intent.name}"
            + (f", attempt {attempt}" if attempt > 1 else "")
            + f": {step.evidence}",
            evidence={"request_id": step.intent.request_id, "spec_hash": step.intent.spec_hash},
        )
    return Telling(
        kind="VM_TERMINATING",
        reason=step.reason.name,
        vm_id=step.vm.vm_id,
        message=f"terminating {step.vm.name or step.vm.vm_id}: {step.evidence}",
        weight=Weight.WARNING,
        evidence={"evidence": step.evidence, "cloud_state": step.vm.cloud_state},
    )


def report(outcome: Outcome) -> Telling | None:
    """What became of a step; nothing of one that was not tried."""
    if outcome.fate is Fate.UNTRIED:
        return None
    if isinstance(outcome.step, Create):
        return _created(outcome, outcome.step)
    return _terminated(outcome, outcome.step)


def changes(before: Mapping[VmId, VmStatus], seen: Observation, plan: Plan) -> Iterator[Telling]:
    """What is different about VMs since the last cycle."""
    for judged in plan.judged:
        was = before.get(judged.vm.vm_id)
        if was is None:
            yield _seen(judged)
        elif was is not judged.status:
            yield _changed(judged, was)
    if seen.complete:
        present = {judged.vm.vm_id for judged in plan.judged}
        for vm_id, was in before.items():
            if vm_id not in present:
                yield _gone(vm_id, was, seen.memory.vms.get(vm_id))


def conditions(before: Iterable[str], now: Sequence[Refusal]) -> Iterator[Telling]:
    """Which conditions came and which went."""
    codes = {each.code for each in now}
    known = set(before)
    for each in now:
        if each.code not in known:
            yield Telling(
                kind="CONDITION_SET", reason=each.code, message=each.message, weight=Weight.WARNING
            )
    for code in sorted(known - codes):
        yield Telling(kind="CONDITION_CLEARED", reason=code, message=f"{code} is over")


def _created(outcome: Outcome, step: Create) -> Telling:
    evidence = {"request_id": step.intent.request_id}
    if outcome.fate is Fate.DONE:
        message = f"created {step.intent.name}"
        vm_id = outcome.vm_id or ""
        return Telling(kind="VM_CREATED", vm_id=vm_id, message=message, evidence=evidence)
    kind = "CREATE_UNKNOWN" if outcome.fate is Fate.UNKNOWN else "CREATE_FAILED"
    return Telling(
        kind=kind,
        reason=outcome.reason,
        message=f"creating {step.intent.name}: {outcome.message}",
        weight=Weight.WARNING,
        evidence=evidence,
    )


def _terminated(outcome: Outcome, step: Terminate) -> Telling:
    if outcome.fate is Fate.DONE:
        message = f"terminated {step.vm.name or step.vm.vm_id}"
        return Telling(
            kind="VM_TERMINATED", reason=step.reason.name, vm_id=step.vm.vm_id, message=message
        )
    return Telling(
        kind="TERMINATE_FAILED",
        reason=outcome.reason,
        vm_id=step.vm.vm_id,
        message=f"terminating {step.vm.name or step.vm.vm_id}: {outcome.message}",
        weight=Weight.WARNING,
    )


def _seen(judged: Judged) -> Telling:
    return Telling(
        kind="VM_SEEN",
        reason=judged.status.name,
        vm_id=judged.vm.vm_id,
        message=f"{judged.vm.name or judged.vm.vm_id} is there: {judged.reason}",
    )


def _changed(judged: Judged, was: VmStatus) -> Telling:
    return Telling(
        kind="VM_STATUS",
        reason=judged.status.name,
        vm_id=judged.vm.vm_id,
        message=f"{was.name} -> {judged.status.name}: {judged.reason}",
        weight=_WEIGHTS.get(judged.status, Weight.INFO),
        evidence={"cloud_state": judged.vm.cloud_state, "fault": judged.vm.fault},
    )


def _gone(vm_id: VmId, was: VmStatus, memory: VmMemory | None) -> Telling:
    ended = was in {VmStatus.DELETING, VmStatus.TERMINATED}
    if ended or (memory is not None and memory.terminating_since is not None):
        return Telling(kind="VM_GONE", vm_id=vm_id, message="gone")
    message = f"gone from the cloud while it was {was.name}: not by our doing"
    return Telling(kind="VM_GONE", vm_id=vm_id, message=message, weight=Weight.WARNING)
