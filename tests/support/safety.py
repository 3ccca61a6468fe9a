"""What must hold for every plan, whatever was seen: the invariants, each with its name."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.decide import decide
from orchestrator.model import (
    Create,
    Judged,
    Observation,
    Plan,
    Process,
    Reason,
    Terminate,
    Verdict,
    VmId,
    VmState,
    VmStatus,
)

_UNTOUCHABLE = {VmState.STOPPED, VmState.TRANSITIONING, VmState.UNKNOWN}
_EXPIRING = {VmStatus.NEARBY_SHUTDOWN, VmStatus.AFTER_TIME_SHUTDOWN}
_ALIVE = {VmState.PENDING, VmState.RUNNING, *_UNTOUCHABLE}


def check_plan(seen: Observation, plan: Plan) -> None:
    """Every invariant that one observation and its plan can show."""
    is_deterministic(seen, plan)
    names_each_once(plan)
    acts_on_whole_listings_alone(seen, plan)
    records_what_it_makes(plan)
    makes_no_more_than_may_live(seen, plan)
    for each in plan.steps:
        has_reason_and_evidence(each)
    for step in plan.terminations:
        touches_nothing_of_others(seen, step)
        destroys_for_health_on_proof_alone(seen, plan, step)
    keeps_the_budget(seen, plan)
    respects_pause(seen, plan)
    says_why(seen, plan)


def is_deterministic(seen: Observation, plan: Plan) -> None:
    assert decide(seen) == plan
    assert decide(replace(seen, vms=tuple(reversed(seen.vms)))) == plan


def names_each_once(plan: Plan) -> None:
    ended = [step.vm.vm_id for step in plan.terminations]
    made = [step.intent.request_id for step in plan.creates]
    assert len(set(ended)) == len(ended)
    assert len(set(made)) == len(made)


def acts_on_whole_listings_alone(seen: Observation, plan: Plan) -> None:
    assert (seen.complete and seen.spec.managed) or not plan.steps


def records_what_it_makes(plan: Plan) -> None:
    written = {intent.request_id for intent in plan.memory.intents}
    assert {step.intent.request_id for step in plan.creates} <= written
    assert len(written) == len(plan.memory.intents)


def makes_no_more_than_may_live(seen: Observation, plan: Plan) -> None:
    """What lives by the listing and what may be on its way, together."""
    if not plan.creates:
        return
    living = sum(1 for each in plan.judged if _lives(each, seen))
    limit = (plan.memory.accepted_count or 0) + seen.spec.policy.max_surge
    assert living + len(plan.memory.intents) <= limit


def has_reason_and_evidence(step: Create | Terminate) -> None:
    assert step.reason
    assert step.evidence


def touches_nothing_of_others(seen: Observation, step: Terminate) -> None:
    if step.reason is Reason.OPERATOR:
        assert step.vm.vm_id in {wish.vm_id for wish in seen.wishes.terminations}
        return
    assert not step.vm.protected
    assert step.vm.state not in _UNTOUCHABLE or _was_sent_away(seen, step.vm.vm_id)


def destroys_for_health_on_proof_alone(seen: Observation, plan: Plan, step: Terminate) -> None:
    if step.reason is not Reason.UNHEALTHY:
        return
    check, memory = seen.spec.check, plan.memory.vms[step.vm.vm_id]
    assert check is not None
    assert not check.observe_only
    assert plan.memory.breaker_since is None
    assert seen.probes[step.vm.vm_id].verdict is Verdict.UNHEALTHY
    assert memory.is_unhealthy
    assert memory.failing_since is not None
    assert memory.first_running is not None
    if not memory.was_healthy:
        assert seen.now - memory.first_running >= seen.spec.policy.startup_grace


def keeps_the_budget(seen: Observation, plan: Plan) -> None:
    paid = [
        step
        for step in plan.terminations
        if step.reason is not Reason.OPERATOR
        and step.vm.state is not VmState.TERMINATED
        and not _was_sent_away(seen, step.vm.vm_id)
    ]
    declared = seen.spec.policy.max_deletions_per_cycle
    size = max(plan.memory.accepted_count or 0, len(seen.vms))
    assert len(paid) <= (max(1, size // 10) if declared is None else declared)


def respects_pause(seen: Observation, plan: Plan) -> None:
    pause = seen.wishes.pause
    if pause is None or (pause.until is not None and pause.until <= seen.now):
        return
    stopped = pause.processes or frozenset(Process)
    reasons = {step.reason for step in plan.terminations if not _was_sent_away(seen, step.vm.vm_id)}
    assert not (Process.CREATE in stopped and plan.creates)
    assert not (Process.HEALTH in stopped and Reason.UNHEALTHY in reasons)
    assert not (Process.SCALE_IN in stopped and Reason.SURPLUS in reasons)
    replaced = {Reason.TIMED_SHUTDOWN, Reason.BOOT_TIMEOUT, Reason.DEAD}
    assert not (Process.REPLACE in stopped and reasons & replaced)


def says_why(seen: Observation, plan: Plan) -> None:
    """Whatever is missing or to go, and is neither made nor destroyed now, has words."""
    living = [each for each in plan.judged if _lives(each, seen)]
    missing = (plan.memory.accepted_count or 0) - len(living)
    leaving = [each for each in living if _is_leaving(each)]
    if missing > 0 and not plan.creates:
        assert plan.refusals
    if (leaving or missing < 0) and not plan.steps:
        assert plan.refusals


def _lives(judged: Judged, seen: Observation) -> bool:
    if judged.status is VmStatus.DELETING or judged.vm.state not in _ALIVE:
        return False
    end = judged.vm.shutdown_at
    return not (judged.vm.state is VmState.STOPPED and end is not None and end <= seen.now)


def _is_leaving(judged: Judged) -> bool:
    return judged.status in _EXPIRING or judged.status is VmStatus.UNHEALTHY


def _was_sent_away(seen: Observation, vm_id: VmId) -> bool:
    memory = seen.memory.vms.get(vm_id)
    return memory is not None and memory.is_terminating
