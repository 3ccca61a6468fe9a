from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.backoff import CREATES_PER_CYCLE, may_create
from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Create,
    Fate,
    IntentPhase,
    Memory,
    Outcome,
    Plan,
    Reason,
    Terminate,
    VmId,
    VmMemory,
)
from orchestrator.recall import doubted, recall, restarted, sent
from tests.support.given import CONDEMNED, NOW, SERVING, SPEC, seconds, seen, spec, vm, vm_id, vms

LATER = NOW + seconds(3)


def sending(attempts: int = 0) -> tuple[Plan, Create]:
    """A plan with one create, about to be sent."""
    plan = decide(seen(spec(1)))
    (step,) = plan.creates
    step = replace(step, intent=replace(step.intent, attempts=attempts))
    memory = sent(replace(plan.memory, intents=(step.intent,)), [step], now=NOW)
    return replace(plan, memory=memory), step


def after(
    fate: Fate, *, attempts: int = 0, reason: str = "", before: Backoff | None = None
) -> Memory:
    plan, step = sending(attempts)
    if before is not None:
        plan = replace(plan, memory=replace(plan.memory, backoff=before))
    outcome = Outcome(
        step=step,
        fate=fate,
        vm_id=vm_id("n") if fate is Fate.DONE else None,
        reason=reason,
        message="said so",
        retry_after=seconds(4) if reason == "HELD_BACK" else None,
    )
    return recall(plan, [outcome], spec=spec(1), now=LATER)


def ended(fate: Fate, before: VmMemory = SERVING, *, reason: str = "") -> VmMemory:
    step = Terminate(vm=vm("a"), reason=Reason.SURPLUS, evidence="too many")
    plan = Plan(steps=(step,), memory=Memory(vms={VmId("a"): before}))
    outcome = Outcome(step=step, fate=fate, reason=reason)
    return recall(plan, [outcome], spec=spec(1), now=LATER).vms[VmId("a")]


def test_a_create_is_marked_as_sent_before_it_is_sent() -> None:
    (intent,) = sending()[0].memory.intents
    assert intent.phase is IntentPhase.SENT
    assert intent.sent_at == NOW
    assert intent.attempts == 1


def test_an_answered_create_is_confirmed_with_its_vm() -> None:
    (intent,) = after(Fate.DONE).intents
    assert intent.phase is IntentPhase.CONFIRMED
    assert intent.vm_id == "n"


def test_an_unknown_outcome_leaves_the_intent_open_from_the_lost_answer_on() -> None:
    (intent,) = after(Fate.UNKNOWN).intents
    assert intent.phase is IntentPhase.SENT
    assert intent.sent_at == LATER


def test_a_create_that_was_refused_the_first_time_is_closed() -> None:
    assert not after(Fate.FAILED, reason="QUOTA_EXCEEDED").intents


@pytest.mark.parametrize("reason", ["UNAVAILABLE", "THROTTLED", "QUOTA_EXCEEDED"])
def test_a_refused_repeat_says_nothing_about_the_time_before(reason: str) -> None:
    assert after(Fate.FAILED, attempts=1, reason=reason).intents


def test_a_create_that_was_never_sent_is_dropped() -> None:
    plan = decide(seen(spec(1)))
    outcome = Outcome(step=plan.creates[0], fate=Fate.UNTRIED)
    assert not recall(plan, [outcome], spec=spec(1), now=LATER).intents


def test_a_create_that_was_sent_before_and_not_this_time_stays_open() -> None:
    assert after(Fate.UNTRIED, attempts=1).intents


def test_a_failed_create_costs_patience_and_a_success_ends_it() -> None:
    failed = after(Fate.FAILED, reason="QUOTA_EXCEEDED").backoff
    assert failed.until == LATER + seconds(15)
    plan, step = sending()
    tired = replace(plan, memory=replace(plan.memory, backoff=failed))
    done = Outcome(step=step, fate=Fate.DONE, vm_id=vm_id("n"))
    assert recall(tired, [done], spec=spec(1), now=LATER).backoff == Backoff()


@pytest.mark.parametrize(
    "reason", ["DEADLINE_TOO_SHORT", "HELD_BACK", "CLOUD_UNREACHABLE", "TOO_MANY_AT_ONCE"]
)
def test_a_create_that_never_left_is_no_failure_of_the_preset(reason: str) -> None:
    memory = after(Fate.FAILED, reason=reason)
    assert memory.backoff.failures == 0
    assert memory.intents == ()


def test_a_create_that_was_not_begun_for_lack_of_time_is_tried_again_at_once() -> None:
    backoff = after(Fate.FAILED, reason="DEADLINE_TOO_SHORT").backoff
    assert may_create(backoff, replace(seen(spec(1)), now=LATER)) == (CREATES_PER_CYCLE, ())


def test_a_create_that_was_held_back_waits_as_long_as_it_is_told_and_never_longer() -> None:
    backoff = after(Fate.FAILED, reason="HELD_BACK").backoff
    number, (refusal,) = may_create(backoff, replace(seen(spec(9)), now=LATER))
    assert number == 0
    assert refusal.code == "BACKOFF"
    assert "waits 4 s: the cloud is left alone for a moment: said so" in refusal.message
    later = replace(seen(spec(9)), now=LATER + seconds(4))
    assert may_create(backoff, later) == (CREATES_PER_CYCLE, ())
    again = after(Fate.FAILED, reason="HELD_BACK", before=backoff).backoff
    assert (again.failures, again.held_until) == (0, LATER + seconds(4))


def test_a_create_that_was_held_back_leaves_earlier_failures_as_they_are() -> None:
    tired = Backoff(failures=2, until=NOW, reason="NO_CAPACITY", message="full", spec_hash=SPEC)
    backoff = after(Fate.FAILED, reason="HELD_BACK", before=tired).backoff
    assert (backoff.failures, backoff.reason, backoff.message) == (2, "NO_CAPACITY", "full")
    assert (backoff.until, backoff.held_until) == (NOW, LATER + seconds(4))
    number, _ = may_create(backoff, replace(seen(spec(9)), now=LATER + seconds(3)))
    assert number == 0


def test_a_create_that_failed_counts_whatever_was_held_back_beside_it() -> None:
    plan = decide(seen(spec(2)))
    outcomes = [
        Outcome(step=plan.creates[0], fate=Fate.FAILED, reason="HELD_BACK", message="resting"),
        Outcome(step=plan.creates[1], fate=Fate.FAILED, reason="THROTTLED", message="429"),
    ]
    backoff = recall(plan, outcomes, spec=spec(2), now=LATER).backoff
    assert (backoff.failures, backoff.reason) == (1, "THROTTLED")


def test_a_success_does_not_end_the_patience_after_failed_births() -> None:
    births = Backoff(failures=2, until=NOW, reason="BOOT_FAILED", spec_hash=SPEC)
    plan, step = sending()
    tired = replace(plan, memory=replace(plan.memory, backoff=births))
    done = Outcome(step=step, fate=Fate.DONE, vm_id=vm_id("n"))
    assert recall(tired, [done], spec=spec(1), now=LATER).backoff == births


def test_an_accepted_termination_is_remembered() -> None:
    assert ended(Fate.DONE).is_terminating


def test_a_refused_termination_leaves_the_vm_as_it_was() -> None:
    memory = ended(Fate.FAILED)
    assert not memory.is_terminating
    assert not memory.is_doubtful
    assert memory.terminate_failed_at == LATER


@pytest.mark.parametrize("reason", ["DEADLINE_TOO_SHORT", "HELD_BACK"])
def test_a_termination_that_never_left_may_be_tried_again_at_once(reason: str) -> None:
    asked = replace(SERVING, terminating_since=NOW, terminate_failed_at=NOW)
    assert ended(Fate.FAILED, asked, reason=reason) == SERVING


def test_a_termination_without_an_answer_is_in_doubt_until_there_is_one() -> None:
    memory = ended(Fate.UNKNOWN)
    assert memory.is_doubtful
    assert not memory.is_terminating
    assert not ended(Fate.FAILED, memory).is_doubtful
    assert ended(Fate.DONE, memory).is_terminating


@pytest.mark.parametrize("fate", [Fate.FAILED, Fate.UNKNOWN])
def test_what_was_accepted_once_stays_accepted(fate: Fate) -> None:
    assert ended(fate, replace(SERVING, terminating_since=NOW)).is_terminating


def test_what_was_not_tried_changes_nothing() -> None:
    assert ended(Fate.UNTRIED) == SERVING


def test_a_new_holder_keeps_facts_and_starts_every_timer_anew() -> None:
    plan, _ = sending()
    before = replace(
        plan.memory,
        vms={VmId("a"): CONDEMNED},
        backoff=Backoff(failures=3, until=NOW + seconds(500), reason="THROTTLED"),
        breaker_since=NOW,
        accepted_count=9,
    )
    memory = restarted(before, LATER)
    assert memory.vms[VmId("a")] == VmMemory(first_seen=LATER, was_healthy=True, was_proved=True)
    assert memory.intents[0].sent_at == LATER
    assert memory.intents[0].request_id == before.intents[0].request_id
    assert memory.backoff.failures == 3
    assert memory.backoff.until is None
    assert memory.breaker_since is None
    assert memory.accepted_count == 9
    assert memory.next_slot == before.next_slot


@pytest.mark.parametrize("fate", [Fate.DONE, Fate.UNKNOWN])
def test_what_was_sent_away_stays_sent_away_for_a_new_holder(fate: Fate) -> None:
    """Else it would count as one of the group again, and a good VM would go as surplus."""
    before = ended(fate)
    memory = restarted(Memory(vms={VmId("a"): before}), LATER).vms[VmId("a")]
    assert memory.is_terminating == before.is_terminating
    assert memory.is_doubtful == before.is_doubtful


def ending() -> tuple[Plan, Terminate]:
    plan = decide(seen(spec(1), vms("ab")))
    (step,) = plan.terminations
    return plan, step


def test_whoever_takes_over_in_the_middle_of_a_termination_takes_no_other_vm_instead() -> None:
    plan = decide(seen(spec(3), vms("abc")))
    ill = Terminate(vm=plan.judged[0].vm, reason=Reason.UNHEALTHY, evidence="failing")
    memory = doubted(plan.memory, [ill], now=NOW)
    assert memory.vms[ill.vm.vm_id].is_doubtful
    # The listing still shows it, and for the successor, whose timers start anew, it is not ill.
    successor = seen(spec(2), vms("abc"), memory=restarted(memory, LATER), now=LATER)
    assert {each.vm.vm_id for each in decide(successor).terminations} <= {ill.vm.vm_id}
    forgetful = replace(successor, memory=restarted(plan.memory, LATER))
    assert {each.vm.vm_id for each in decide(forgetful).terminations} != {ill.vm.vm_id}


@pytest.mark.parametrize("fate", [Fate.DONE, Fate.FAILED])
def test_an_answer_to_a_termination_ends_the_doubt(fate: Fate) -> None:
    plan, step = ending()
    plan = replace(plan, memory=doubted(plan.memory, [step], now=NOW))
    memory = recall(plan, [Outcome(step=step, fate=fate)], spec=spec(1), now=LATER)
    remembered = memory.vms[step.vm.vm_id]
    assert not remembered.is_doubtful
    assert remembered.is_terminating is (fate is Fate.DONE)


def test_a_termination_that_was_accepted_before_stays_accepted_when_it_is_repeated() -> None:
    plan, step = ending()
    accepted = recall(plan, [Outcome(step=step, fate=Fate.DONE)], spec=spec(1), now=NOW)
    assert doubted(accepted, [step], now=LATER).vms[step.vm.vm_id].is_terminating
