"""What must hold for every plan, whatever was seen: the invariants, each with its name."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from orchestrator.decide import decide
from orchestrator.model import (
    Judged,
    Keep,
    Method,
    Observation,
    Plan,
    Process,
    Reason,
    Repair,
    Replace,
    Step,
    Terminate,
    Verdict,
    VmId,
    VmState,
    VmStatus,
)

_UNTOUCHABLE = {VmState.TRANSITIONING, VmState.UNKNOWN}
_EXPIRING = {VmStatus.NEARBY_SHUTDOWN, VmStatus.AFTER_TIME_SHUTDOWN}
_ALIVE = {VmState.PENDING, VmState.RUNNING, VmState.STOPPED, *_UNTOUCHABLE}
_TURNOVER = {Reason.OUTDATED, Reason.MAX_LIFETIME}
_PROCESSES = {
    Reason.UNHEALTHY: Process.HEALTH,
    Reason.OUTDATED: Process.ROLLOUT,
    Reason.SURPLUS: Process.SCALE_IN,
    Reason.PRESET_REMOVED: Process.SCALE_IN,
    Reason.TIMED_SHUTDOWN: Process.REPLACE,
    Reason.BOOT_TIMEOUT: Process.REPLACE,
    Reason.DEAD: Process.REPLACE,
    Reason.MAX_LIFETIME: Process.REPLACE,
    Reason.STOPPED: Process.REPLACE,
}


def check_plan(seen: Observation, plan: Plan) -> None:
    """Every invariant that one observation and its plan can show."""
    is_deterministic(seen, plan)
    names_each_once(plan)
    acts_on_whole_listings_alone(seen, plan)
    records_what_it_makes(plan)
    makes_no_more_than_may_live(seen, plan)
    spreads_over_zones(seen, plan)
    for each in plan.steps:
        has_reason_and_evidence(each)
    for step in _ends(plan):
        touches_nothing_of_others(seen, step)
        destroys_for_health_on_proof_alone(seen, plan, step)
        destroys_for_what_the_preset_says(seen, plan, step)
    repairs_one_on_proof_alone(seen, plan)
    keeps_the_budget(seen, plan)
    keeps_who_serves(seen, plan)
    respects_pause(seen, plan)
    says_why(seen, plan)


def is_deterministic(seen: Observation, plan: Plan) -> None:
    assert decide(seen) == plan
    assert decide(_shuffled(seen)) == plan


def _shuffled(seen: Observation) -> Observation:
    """The same observation, told in another order."""
    memory = replace(seen.memory, vms=dict(reversed(list(seen.memory.vms.items()))))
    wishes = replace(seen.wishes, terminations=tuple(reversed(seen.wishes.terminations)))
    return replace(
        seen,
        vms=tuple(reversed(seen.vms)),
        probes=dict(reversed(list(seen.probes.items()))),
        memory=memory,
        wishes=wishes,
    )


def names_each_once(plan: Plan) -> None:
    touched = [step.vm.vm_id for step in _ends(plan)] + [step.vm.vm_id for step in plan.repairs]
    made = [step.intent.request_id for step in plan.creates]
    assert len(set(touched)) == len(touched)
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
    assert seen.removal is None
    living = sum(1 for each in plan.judged if _lives(each, seen))
    limit = (plan.memory.accepted_count or 0) + seen.spec.policy.max_surge
    assert living + len(plan.memory.intents) <= limit


def spreads_over_zones(seen: Observation, plan: Plan) -> None:
    """No zone gets a new VM while another one of the preset, with nothing short, has fewer."""
    fresh = [step.intent.placement.zone for step in plan.creates if step.reason != "REPEAT"]
    if not fresh or not seen.spec.zones or seen.memory.shortages:
        return
    load = Counter(each.vm.zone for each in plan.judged if _lives(each, seen))
    load.update(intent.placement.zone for intent in plan.memory.intents)
    assert set(fresh) <= set(seen.spec.zones)
    assert max(load[zone] for zone in fresh) <= min(load[zone] for zone in seen.spec.zones) + 1


def has_reason_and_evidence(step: Step) -> None:
    assert step.method if isinstance(step, Repair) else step.reason
    assert step.evidence


def touches_nothing_of_others(seen: Observation, step: Terminate | Keep) -> None:
    """What is a person's: only that person's wish ends it, or the preset's own word for it."""
    wishes = {wish.vm_id: wish for wish in seen.wishes.terminations}
    is_protected = step.vm.vm_id in seen.wishes.protections or step.vm.protected
    if step.reason is Reason.OPERATOR:
        assert wishes[step.vm.vm_id].force or not is_protected
        return
    assert not is_protected
    if _was_sent_away(seen, step.vm.vm_id):
        return
    assert step.vm.state not in _UNTOUCHABLE or _is_kept(seen, step.vm.vm_id)
    may_be_stopped = {Reason.STOPPED, Reason.PRESET_REMOVED, Reason.STUDY_OVER}
    assert step.vm.state is not VmState.STOPPED or step.reason in may_be_stopped


def destroys_for_health_on_proof_alone(
    seen: Observation, plan: Plan, step: Terminate | Keep
) -> None:
    if step.reason is not Reason.UNHEALTHY:
        return
    is_condemned_by_its_check(seen, plan, step.vm.vm_id)


def is_condemned_by_its_check(seen: Observation, plan: Plan, vm_id: VmId) -> None:
    check, memory = seen.spec.check, plan.memory.vms[vm_id]
    assert check is not None
    assert not check.observe_only
    assert plan.memory.breaker_since is None
    assert plan.memory.suspended_since is None
    assert seen.probes[vm_id].verdict is Verdict.UNHEALTHY
    assert memory.is_unhealthy
    assert not _is_too_much(seen, plan)
    assert memory.failing_since is not None
    assert memory.first_running is not None
    if not memory.was_healthy:
        assert seen.now - memory.first_running >= seen.spec.policy.startup_grace


def _is_too_much(seen: Observation, plan: Plan) -> bool:
    """Whether more fail at once than the preset or the prober of all of them may believe."""
    policy, fleet = seen.spec.policy, seen.fleet
    running = [
        each
        for each in plan.judged
        if each.vm.state is VmState.RUNNING
        and each.status not in {VmStatus.DELETING, VmStatus.KEPT}
    ]
    failing = sum(1 for each in running if each.memory.failures)
    here = failing >= policy.breaker_count and 100 * failing >= policy.breaker_percent * len(
        running
    )
    all_over = fleet.failing >= fleet.breaker_count
    return here or (all_over and 100 * fleet.failing >= fleet.breaker_percent * fleet.probed)


def destroys_for_what_the_preset_says(
    seen: Observation, plan: Plan, step: Terminate | Keep
) -> None:
    """Whatever is wrong with nothing but a VM's age or kind goes only by the preset's own words."""
    policy, rollout = seen.spec.policy, plan.memory.rollout
    if step.reason is Reason.OUTDATED:
        assert policy.replace is Replace.ROLLING
        assert rollout is not None
        assert rollout.stopped_at is None
    if step.reason is Reason.MAX_LIFETIME:
        assert policy.max_lifetime is not None
        born = step.vm.created or plan.memory.vms[step.vm.vm_id].first_seen
        assert seen.now - born >= policy.max_lifetime
    if step.reason is Reason.STOPPED:
        assert policy.stopped_are_replaced
    if step.reason is Reason.STUDY_OVER:
        assert _is_kept(seen, step.vm.vm_id)
    if seen.removal is not None and step.reason is not Reason.OPERATOR:
        assert step.reason is Reason.PRESET_REMOVED
    if step.reason is Reason.PRESET_REMOVED:
        assert seen.removal is not None
        assert not seen.removal.held_back
        assert policy.deleted_on_removal
        assert seen.now - seen.removal.since >= policy.removal_grace


def repairs_one_on_proof_alone(seen: Observation, plan: Plan) -> None:
    """One VM at a time, of the declared spec, as often as the policy says."""
    assert len(plan.repairs) <= 1
    for step in plan.repairs:
        memory, policy = plan.memory.vms[step.vm.vm_id], seen.spec.policy
        is_condemned_by_its_check(seen, plan, step.vm.vm_id)
        assert step.method in seen.cloud.methods
        assert not step.vm.protected
        assert step.vm.vm_id not in seen.wishes.protections
        assert not _is_paused(seen, Process.HEALTH)
        assert seen.removal is None
        if policy.replace is not Replace.NEVER:
            assert step.vm.spec_hash == seen.spec.spec_hash
        if step.method is Method.REBOOT:
            assert memory.reboots < policy.reboots
        else:
            assert memory.rebuilds < policy.rebuilds


def keeps_the_budget(seen: Observation, plan: Plan) -> None:
    paid = [
        step
        for step in plan.terminations
        if step.reason is not Reason.OPERATOR
        and step.vm.state is not VmState.TERMINATED
        and not _was_sent_away(seen, step.vm.vm_id)
    ]
    policy, declared = seen.spec.policy, seen.spec.policy.max_deletions_per_cycle
    size = max(plan.memory.accepted_count or 0, len(seen.vms))
    assert len(paid) <= (max(1, size // 10) if declared is None else declared)
    if policy.max_deletions_per_window is not None and paid:
        lately = [
            each
            for each in seen.memory.deletions
            if seen.now - min(each.at, seen.now) < policy.deletion_window
        ]
        assert len(lately) + len(paid) <= policy.max_deletions_per_window


def keeps_who_serves(seen: Observation, plan: Plan) -> None:
    """Nothing with which nothing is wrong goes where too few would serve without it."""
    ended = {step.vm.vm_id for step in plan.terminations}
    turned = [step for step in plan.terminations if step.reason in _TURNOVER]
    ready = sum(1 for each in plan.judged if _is_proved(each) and each.vm.vm_id not in ended)
    floor = (plan.memory.accepted_count or 0) - seen.spec.policy.max_unavailable
    was_ready = {each.vm.vm_id for each in plan.judged if each.is_ready}
    assert ready >= floor or not any(step.vm.vm_id in was_ready for step in turned)


def respects_pause(seen: Observation, plan: Plan) -> None:
    assert not (_is_paused(seen, Process.CREATE) and plan.creates)
    for step in _ends(plan):
        process = _PROCESSES.get(step.reason)
        if process is not None and not _was_sent_away(seen, step.vm.vm_id):
            assert not _is_paused(seen, process)


def says_why(seen: Observation, plan: Plan) -> None:
    """Whatever is missing or to go, and is neither made nor destroyed now, has words."""
    living = [each for each in plan.judged if _lives(each, seen)]
    missing = (plan.memory.accepted_count or 0) - len(living)
    leaving = [each for each in living if _is_leaving(each)]
    if missing > 0 and not plan.creates:
        assert plan.refusals
    if (leaving or missing < 0) and not plan.steps:
        assert plan.refusals


def _ends(plan: Plan) -> list[Terminate | Keep]:
    return [*plan.terminations, *plan.keeps]


def _is_paused(seen: Observation, process: Process) -> bool:
    pause = seen.wishes.pause
    if pause is None or (pause.until is not None and pause.until <= seen.now):
        return False
    return not pause.processes or process in pause.processes


def _lives(judged: Judged, seen: Observation) -> bool:
    if judged.status in {VmStatus.DELETING, VmStatus.KEPT} or judged.vm.state not in _ALIVE:
        return False
    end = judged.vm.shutdown_at
    return not (judged.vm.state is VmState.STOPPED and end is not None and end <= seen.now)


def _is_proved(judged: Judged) -> bool:
    """Whether it serves, and what is new has done so for long enough."""
    return judged.is_ready and (judged.is_outdated or judged.memory.was_proved)


def _is_leaving(judged: Judged) -> bool:
    is_going = judged.status in _EXPIRING or judged.status is VmStatus.UNHEALTHY
    return is_going or judged.leaves_for is not None


def _is_kept(seen: Observation, vm_id: VmId) -> bool:
    memory = seen.memory.vms.get(vm_id)
    return memory is not None and memory.kept_since is not None


def _was_sent_away(seen: Observation, vm_id: VmId) -> bool:
    memory = seen.memory.vms.get(vm_id)
    return memory is not None and memory.is_terminating
