"""Pure: what happened in a cycle, as events for people, for `explain` and for the back-test.

Before a VM is destroyed, repaired or set aside its reason and evidence are told; afterwards what
became of each step. What changed about the preset, its VMs and their probes is told too, whole
enough to replay it, and which conditions came and went. User data never appear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from .clauses import clause_for, clause_of, reason_of
from .findings import facts_of, place_of
from .model import (
    Create,
    Fate,
    Judged,
    Keep,
    Method,
    Observation,
    Outcome,
    Plan,
    Refusal,
    Repair,
    Step,
    Terminate,
    Vm,
    VmId,
    VmMemory,
    VmStatus,
)
from .words import called, probe_words


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


# Words for a repair that is begun, under way and done.
_REPAIRS = {
    Method.REBOOT: ("VM_REBOOTING", "rebooting", "VM_REBOOTED", "rebooted"),
    Method.REBUILD: ("VM_REBUILDING", "rebuilding", "VM_REBUILT", "rebuilt"),
}
_NOT_PROBED = ("UNKNOWN", "not probed any more")


def announce(step: Step, known: Mapping[str, str] | None = None) -> Telling:
    """What is about to be done, told before it is done, with all that is known about its VM."""
    if isinstance(step, Create):
        return _creating(step)
    kind, verb = _words(step)
    return Telling(
        kind=kind,
        reason=reason_of(step),
        vm_id=step.vm.vm_id,
        message=f"{verb} {called(step.vm)}: {step.evidence}",
        weight=Weight.WARNING,
        evidence={
            "evidence": step.evidence,
            "clause": clause_for(step),
            **facts_of(step.vm),
            **(known or {}),
        },
    )


def report(outcome: Outcome) -> Telling | None:
    """What became of a step; nothing of one that was not tried, or that its announcement told."""
    step = outcome.step
    if outcome.fate is Fate.UNTRIED or isinstance(step, Keep):
        return None
    if isinstance(step, Create):
        return _created(outcome, step)
    return _repaired(outcome, step) if isinstance(step, Repair) else _terminated(outcome, step)


def edits(former_hash: str, seen: Observation, plan: Plan) -> Iterator[Telling]:
    """What is declared otherwise than in the last cycle: an accepted count, or the spec."""
    spec_hash, former = seen.spec.spec_hash, seen.memory.accepted_count
    count = plan.memory.accepted_count
    has_count = former is not None and count != former
    has_spec = former_hash not in {"", spec_hash}
    if seen.removal is not None or not (has_count or has_spec):
        return
    words = [f"the count went from {former} to {count}"] if has_count else []
    words += [f"the spec changed: {former_hash[:8]} → {spec_hash[:8]}"] if has_spec else []
    yield Telling(
        kind="PRESET_EDITED",
        message="; ".join(words),
        evidence={
            "count": "" if count is None else str(count),
            "spec_hash": spec_hash,
            "former_count": str(former) if has_count else "",
            "former_spec_hash": former_hash if has_spec else "",
        },
    )


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


def probe_changes(before: Mapping[VmId, tuple[str, str]], seen: Observation) -> Iterator[Telling]:
    """Whose probe says something else than before; both are (verdict, message) by VM.

    A message alone may differ from probe to probe: it is no change. A VM that is still there and is
    not probed any more is told once.
    """
    now = probe_words(seen.probes)
    told = before.keys() | now.keys()
    for vm_id in (vm.vm_id for vm in seen.vms if vm.vm_id in told):
        verdict, message = now.get(vm_id, _NOT_PROBED)
        if vm_id not in before or verdict != before[vm_id][0]:
            yield Telling(kind="VM_PROBE", reason=verdict, vm_id=vm_id, message=message)


def conditions(before: Iterable[str], now: Sequence[Refusal]) -> Iterator[Telling]:
    """Which conditions came and which went."""
    codes = {each.code for each in now}
    known = set(before)
    for each in now:
        if each.code not in known:
            yield Telling(
                kind="CONDITION_SET",
                reason=each.code,
                message=each.message,
                weight=Weight.WARNING,
                evidence={"clause": clause_of(each.code)},
            )
    for code in sorted(known - codes):
        yield Telling(kind="CONDITION_CLEARED", reason=code, message=f"{code} is over")


def _words(step: Terminate | Repair | Keep) -> tuple[str, str]:
    """The kind of its announcement, and a verb."""
    if isinstance(step, Repair):
        return _REPAIRS[step.method][:2]
    if isinstance(step, Keep):
        return "VM_KEPT", "keeping for study"
    return "VM_TERMINATING", "terminating"


def _creating(step: Create) -> Telling:
    intent, attempt = step.intent, step.intent.attempts + 1
    again = f", attempt {attempt}" if attempt > 1 else ""
    return Telling(
        kind="VM_CREATING",
        reason=reason_of(step),
        message=f"creating {intent.name}{again}: {step.evidence}",
        evidence={**_ordered(step), "clause": clause_for(step)},
    )


def _ordered(step: Create) -> dict[str, str]:
    """What was asked of the cloud; an image, flavor or zone only where it was chosen."""
    intent = step.intent
    return {
        "request_id": intent.request_id,
        "spec_hash": intent.spec_hash,
        **place_of(intent.placement),
    }


def _created(outcome: Outcome, step: Create) -> Telling:
    evidence = _ordered(step)
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


def _repaired(outcome: Outcome, step: Repair) -> Telling:
    _, verb, kind, done = _REPAIRS[step.method]
    if outcome.fate is Fate.DONE:
        message = f"{done} {called(step.vm)}"
        return Telling(kind=kind, reason=reason_of(step), vm_id=step.vm.vm_id, message=message)
    return _failed(outcome, step.vm, "REPAIR_FAILED", verb)


def _terminated(outcome: Outcome, step: Terminate) -> Telling:
    if outcome.fate is Fate.DONE:
        return Telling(
            kind="VM_TERMINATED",
            reason=reason_of(step),
            vm_id=step.vm.vm_id,
            message=f"terminated {called(step.vm)}",
        )
    return _failed(outcome, step.vm, "TERMINATE_FAILED", "terminating")


def _failed(outcome: Outcome, vm: Vm, kind: str, verb: str) -> Telling:
    return Telling(
        kind=kind,
        reason=outcome.reason,
        vm_id=vm.vm_id,
        message=f"{verb} {called(vm)}: {outcome.message}",
        weight=Weight.WARNING,
    )


def _seen(judged: Judged) -> Telling:
    return Telling(
        kind="VM_SEEN",
        reason=judged.status.name,
        vm_id=judged.vm.vm_id,
        message=f"{called(judged.vm)} is there: {judged.reason}",
        evidence=facts_of(judged.vm),
    )


def _changed(judged: Judged, was: VmStatus) -> Telling:
    return Telling(
        kind="VM_STATUS",
        reason=judged.status.name,
        vm_id=judged.vm.vm_id,
        message=f"{was.name} -> {judged.status.name}: {judged.reason}",
        weight=_WEIGHTS.get(judged.status, Weight.INFO),
        evidence=facts_of(judged.vm),
    )


def _gone(vm_id: VmId, was: VmStatus, memory: VmMemory | None) -> Telling:
    ended = was in {VmStatus.DELETING, VmStatus.TERMINATED}
    if ended or (memory is not None and memory.terminating_since is not None):
        return Telling(kind="VM_GONE", vm_id=vm_id, message="gone")
    message = f"gone from the cloud while it was {was.name}: not by our doing"
    return Telling(kind="VM_GONE", vm_id=vm_id, message=message, weight=Weight.WARNING)
