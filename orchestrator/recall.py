"""Pure: what to remember once the steps of a plan were tried.

(Plan, Outcomes, now) -> Memory. An unknown outcome leaves its intent open; only an answer closes
or confirms one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from . import placement
from .backoff import BOOT_FAILED, after_failure
from .failures import Scope, class_of
from .health import forget_failures
from .model import (
    Backoff,
    Create,
    Deletion,
    Fate,
    Intent,
    IntentPhase,
    Keep,
    Memory,
    Method,
    Outcome,
    Plan,
    Reason,
    Repair,
    Spec,
    Terminate,
    VmId,
    VmMemory,
    VmState,
)

# A refusal of a repair that says nothing about the VM, as one that was never sent: the try does not
# count.
_NOT_TRIED = {
    "BUDGET_SPENT",
    "BREAKER_OPEN",
    "THROTTLED",
    "UNAVAILABLE",
    "CLOUD_FAILING",
    "CELL_DOWN",
}


def recall(plan: Plan, outcomes: Sequence[Outcome], *, spec: Spec, now: datetime) -> Memory:
    """The plan's memory, with what became of its steps."""
    memory = plan.memory
    creates = {
        each.step.intent.request_id: each for each in outcomes if isinstance(each.step, Create)
    }
    terminations = {
        each.step.vm.vm_id: each for each in outcomes if isinstance(each.step, Terminate)
    }
    intents = tuple(
        kept
        for intent in memory.intents
        if (kept := _intent_after(intent, creates.get(intent.request_id), now)) is not None
    )
    vms = {vm_id: _vm_after(vm, terminations.get(vm_id), now) for vm_id, vm in memory.vms.items()}
    for each in outcomes:
        if isinstance(each.step, Repair | Keep) and each.step.vm.vm_id in vms:
            vms[each.step.vm.vm_id] = _spared_after(vms[each.step.vm.vm_id], each, now)
    shortages = placement.after(memory.shortages, list(creates.values()), spec, now)
    is_stuck = not placement.has_choice(spec) or not placement.is_choice_left(shortages, spec, now)
    return replace(
        memory,
        intents=intents,
        vms=vms,
        shortages=shortages,
        deletions=(*memory.deletions, *_deletions(list(terminations.values()), now)),
        backoff=_backoff_after(memory, list(creates.values()), spec, now, is_stuck=is_stuck),
    )


def sent(memory: Memory, steps: Sequence[Create], *, now: datetime) -> Memory:
    """The memory to be written before these creates are sent."""
    marked = {step.intent.request_id for step in steps}
    intents = tuple(
        replace(intent, phase=IntentPhase.SENT, sent_at=now, attempts=intent.attempts + 1)
        if intent.request_id in marked
        else intent
        for intent in memory.intents
    )
    return replace(memory, intents=intents)


def doubted(memory: Memory, steps: Sequence[Terminate], *, now: datetime) -> Memory:
    """The memory to be written before these terminations are sent: each may have been carried out.

    One that the cloud accepted before stays accepted.
    """
    asked = {step.vm.vm_id for step in steps}
    vms = {
        vm_id: replace(vm, terminating_since=now, terminate_failed_at=now)
        if vm_id in asked and not vm.is_terminating
        else vm
        for vm_id, vm in memory.vms.items()
    }
    return replace(memory, vms=vms)


def repairing(memory: Memory, steps: Sequence[Repair], *, now: datetime) -> Memory:
    """The memory to be written before these repairs are sent: each may have been carried out, and
    is never tried more often than allowed because an answer was lost.
    """
    vms = dict(memory.vms)
    for step in steps:
        if step.vm.vm_id in vms:
            vms[step.vm.vm_id] = _tried(vms[step.vm.vm_id], step.method, now)
    return replace(memory, vms=vms)


def restarted(memory: Memory, now: datetime) -> Memory:
    """What a new holder makes of its predecessor's memory: facts stay, every timer starts anew.

    Times were read from another clock, and nobody watched meanwhile.
    """
    intents = tuple(
        intent if intent.phase is IntentPhase.PLANNED else replace(intent, sent_at=now)
        for intent in memory.intents
    )
    backoff = Backoff()
    if memory.backoff.failures:
        backoff = replace(memory.backoff, until=None, held_until=None)
    vms: dict[VmId, VmMemory] = {
        vm_id: VmMemory(
            first_seen=now,
            was_healthy=vm.was_healthy,
            # What was sent away stays sent away: it must not count as one of the group again.
            terminating_since=now if vm.terminating_since else None,
            terminate_failed_at=now if vm.is_doubtful else None,
            boot_failure_counted=vm.boot_failure_counted,
            was_proved=vm.was_proved,
            reboots=vm.reboots,
            rebuilds=vm.rebuilds,
            repaired_at=now if vm.repaired_at else None,
            # Days, not seconds: a clock that is a little off makes no difference.
            kept_since=vm.kept_since,
            first_image=vm.first_image,
            first_flavor=vm.first_flavor,
        )
        for vm_id, vm in memory.vms.items()
    }
    return replace(
        memory,
        intents=intents,
        backoff=backoff,
        vms=vms,
        breaker_since=None,
        shortages=(),
        deletions=tuple(replace(each, at=now) for each in memory.deletions),
    )


def _intent_after(intent: Intent, outcome: Outcome | None, now: datetime) -> Intent | None:
    if outcome is None:
        return intent
    if outcome.fate is Fate.UNKNOWN:
        # From now on, not from before the call: it may have been carried out at any time between.
        return replace(intent, phase=IntentPhase.SENT, sent_at=now)
    if outcome.fate is Fate.DONE:
        return replace(intent, phase=IntentPhase.CONFIRMED, vm_id=outcome.vm_id)
    if outcome.fate is Fate.UNTRIED:
        return None if intent.phase is IntentPhase.PLANNED else intent
    # A refusal of this time (out of reach, throttled, no quota) says nothing about the time before.
    return intent if intent.attempts > 1 else None


def _vm_after(vm: VmMemory, outcome: Outcome | None, now: datetime) -> VmMemory:
    if outcome is None or outcome.fate is Fate.UNTRIED:
        return vm
    if outcome.fate is Fate.DONE:
        return replace(vm, terminating_since=now, terminate_failed_at=None)
    accepted = vm.terminating_since if vm.is_terminating else None
    if outcome.fate is Fate.UNKNOWN:
        return replace(vm, terminating_since=accepted or now, terminate_failed_at=now)
    failed_at = now if class_of(outcome.reason).is_failure else None
    return replace(vm, terminating_since=accepted, terminate_failed_at=failed_at)


def _tried(vm: VmMemory, method: Method, now: datetime) -> VmMemory:
    """A VM that is about to be repaired: it has its grace again, and one try less."""
    vm = replace(
        forget_failures(vm),
        first_running=None,
        was_healthy=False,
        ready_since=None,
        repaired_at=now,
    )
    if method is Method.REBOOT:
        return replace(vm, reboots=vm.reboots + 1)
    # A rebuilt VM may come back with another image by name.
    return replace(vm, rebuilds=vm.rebuilds + 1, first_image="", first_flavor="")


def _spared_after(vm: VmMemory, outcome: Outcome, now: datetime) -> VmMemory:
    """A VM that was to be repaired or kept, afterwards."""
    if isinstance(outcome.step, Keep):
        return replace(vm, kept_since=now) if outcome.fate is Fate.DONE else vm
    is_tried = outcome.reason not in _NOT_TRIED and class_of(outcome.reason).is_failure
    if outcome.fate is not Fate.FAILED or is_tried:
        return vm
    if isinstance(outcome.step, Repair) and outcome.step.method is Method.REBOOT:
        return replace(vm, reboots=max(0, vm.reboots - 1))
    return replace(vm, rebuilds=max(0, vm.rebuilds - 1))


def _deletions(terminations: Sequence[Outcome], now: datetime) -> list[Deletion]:
    """What counts in windows: VMs that lived, and are gone or going for all we know."""
    return [
        Deletion(at=now, for_health=each.step.reason is Reason.UNHEALTHY)
        for each in terminations
        if isinstance(each.step, Terminate)
        and each.fate in {Fate.DONE, Fate.UNKNOWN}
        and each.step.vm.state is not VmState.TERMINATED
    ]


def _backoff_after(
    memory: Memory, creates: Sequence[Outcome], spec: Spec, now: datetime, *, is_stuck: bool
) -> Backoff:
    """Patience after these creates; none where another placement can be tried at once."""
    refused = [each for each in creates if each.fate is Fate.FAILED]
    failed = [each for each in refused if class_of(each.reason).is_failure]
    held = [each for each in refused if each not in failed]
    hopeless = [each for each in failed if class_of(each.reason).scope is Scope.NOTHING]
    backoff = memory.backoff if failed else _backoff_unless_failed(memory, creates)
    costly = (failed if is_stuck else hopeless) or held
    if not costly:
        return backoff
    return after_failure(
        backoff,
        reason=costly[0].reason,
        message=costly[0].message,
        now=now,
        spec=spec,
        at_least=costly[0].retry_after,
    )


def _backoff_unless_failed(memory: Memory, creates: Sequence[Outcome]) -> Backoff:
    backoff = memory.backoff
    if backoff.reason == BOOT_FAILED or all(each.fate is not Fate.DONE for each in creates):
        return backoff
    # The cloud makes VMs again; whether they live is another question where repair is suspended.
    return replace(backoff, reason=BOOT_FAILED) if memory.suspended_since else Backoff()
