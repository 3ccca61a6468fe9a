"""Pure: what to remember once the steps of a plan were tried.

(Plan, Outcomes, now) -> Memory. An unknown outcome leaves its intent open; only an answer closes
or confirms one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from .backoff import BOOT_FAILED, after_failure
from .model import (
    Backoff,
    Create,
    Fate,
    Intent,
    IntentPhase,
    Memory,
    Outcome,
    Plan,
    Spec,
    Terminate,
    VmId,
    VmMemory,
)


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
    backoff = _backoff_after(memory.backoff, list(creates.values()), spec, now)
    return replace(memory, intents=intents, vms=vms, backoff=backoff)


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


def restarted(memory: Memory, now: datetime) -> Memory:
    """What a new holder makes of its predecessor's memory: facts stay, every timer starts anew.

    Times were read from another clock, and nobody watched meanwhile.
    """
    intents = tuple(
        intent if intent.phase is IntentPhase.PLANNED else replace(intent, sent_at=now)
        for intent in memory.intents
    )
    backoff = replace(memory.backoff, until=None) if memory.backoff.failures else Backoff()
    vms: dict[VmId, VmMemory] = {
        vm_id: VmMemory(
            first_seen=now,
            was_healthy=vm.was_healthy,
            # What was sent away stays sent away: it must not count as one of the group again.
            terminating_since=now if vm.terminating_since else None,
            terminate_failed_at=now if vm.is_doubtful else None,
            boot_failure_counted=vm.boot_failure_counted,
        )
        for vm_id, vm in memory.vms.items()
    }
    return replace(memory, intents=intents, backoff=backoff, vms=vms, breaker_since=None)


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
    return replace(vm, terminating_since=accepted, terminate_failed_at=now)


def _backoff_after(
    backoff: Backoff, creates: Sequence[Outcome], spec: Spec, now: datetime
) -> Backoff:
    failed = [each for each in creates if each.fate is Fate.FAILED]
    if failed:
        worst = failed[0]
        return after_failure(
            backoff,
            reason=worst.reason,
            message=worst.message,
            now=now,
            spec_hash=spec.spec_hash,
            at_least=worst.retry_after,
        )
    succeeded = any(each.fate is Fate.DONE for each in creates)
    return Backoff() if succeeded and backoff.reason != BOOT_FAILED else backoff
