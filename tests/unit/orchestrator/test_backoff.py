from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator import backoff
from orchestrator.decide import decide
from orchestrator.model import Backoff, Judged, Memory, Policy, VmMemory, VmState, VmStatus
from tests.support.given import (
    NOW,
    SERVING,
    SPEC,
    judged,
    memories,
    seconds,
    seen,
    spec,
    vm,
    vms,
)

WAITING = Backoff(
    failures=2, until=NOW + seconds(30), reason="QUOTA_EXCEEDED", message="no room", spec_hash=SPEC
)
READY = replace(WAITING, until=NOW)
BIRTHS = Backoff(failures=2, until=NOW - seconds(60), reason="BOOT_FAILED", spec_hash=SPEC)


def failed(before: Backoff, reason: str, at_least: float | None = None) -> Backoff:
    return backoff.after_failure(
        before,
        reason=reason,
        message="said so",
        now=NOW,
        spec=spec(),
        at_least=None if at_least is None else seconds(at_least),
    )


def stillborn(name: str) -> Judged:
    memory = VmMemory(first_seen=NOW - seconds(5))
    return judged(name, VmStatus.ERROR, state=VmState.ERROR, memory=memory)


@pytest.mark.parametrize(
    ("reason", "first"),
    [("QUOTA_EXCEEDED", 15), ("THROTTLED", 5), ("BAD_REQUEST", 30), ("UNAVAILABLE", 1)],
)
def test_the_first_patience_fits_the_class_and_doubles(reason: str, first: int) -> None:
    once = failed(Backoff(), reason)
    assert once.until == NOW + seconds(first)
    assert failed(once, reason).until == NOW + seconds(2 * first)


def test_patience_has_an_end() -> None:
    assert failed(Backoff(failures=500), "UNAVAILABLE").until == NOW + Policy().longest_backoff


def test_the_cloud_may_ask_for_more_patience() -> None:
    assert failed(Backoff(), "THROTTLED", at_least=40).until == NOW + seconds(40)


def test_nothing_is_created_while_patience_lasts_and_it_says_how_long() -> None:
    number, refusals = backoff.may_create(WAITING, seen(spec()))
    assert number == 0
    assert refusals[0].code == "BACKOFF"
    assert "30 s" in refusals[0].message
    assert "no room" in refusals[0].message


def test_afterwards_one_is_tried_alone() -> None:
    number, refusals = backoff.may_create(READY, seen(spec()))
    assert number == 1
    assert refusals[0].code == "SLOW_START"


def test_without_the_slow_start_all_would_be_tried_against_a_full_quota() -> None:
    after_failure = decide(seen(spec(9), memory=Memory(backoff=READY)))
    never_failed = decide(seen(spec(9), memory=Memory()))
    assert len(after_failure.creates) == 1
    assert len(never_failed.creates) == 9


def test_a_changed_spec_is_tried_at_once() -> None:
    stale = replace(WAITING, spec_hash="spec-0")
    assert backoff.settle([], stale, seen(spec())) == Backoff()
    assert backoff.settle([], WAITING, seen(spec())) == WAITING


def test_deaths_at_birth_count_once_a_cycle_and_once_a_vm() -> None:
    observation = seen(spec())
    group = [stillborn("a"), stillborn("b")]
    after = backoff.boot_failures(group, Backoff(), observation)
    assert after.failures == 1
    assert after.reason == "BOOT_FAILED"
    again = [backoff.counted(each, observation) for each in group]
    assert backoff.boot_failures(again, after, observation) == after


def test_a_death_after_infancy_is_no_failed_birth() -> None:
    dead = judged("a", VmStatus.ERROR, state=VmState.ERROR, memory=SERVING)
    grown = replace(dead, memory=VmMemory(first_seen=NOW - seconds(600)))
    assert not backoff.is_stillborn(dead, seen(spec()))
    assert not backoff.is_stillborn(grown, seen(spec()))


def test_failed_births_of_another_spec_do_not_count() -> None:
    old = stillborn("a")
    assert not backoff.is_stillborn(
        replace(old, vm=replace(old.vm, spec_hash="spec-0")), seen(spec())
    )


def test_a_vm_born_after_the_failed_births_that_stands_ends_the_patience() -> None:
    later = VmMemory(
        first_seen=NOW - seconds(50), first_running=NOW - seconds(40), was_healthy=True
    )
    assert backoff.settle([_ready("a", later)], BIRTHS, seen(spec())) == Backoff()


def test_a_vm_that_stands_ends_the_patience_also_if_another_was_held_back_after_its_birth() -> None:
    held = failed(BIRTHS, "HELD_BACK", at_least=60)
    born = VmMemory(first_seen=NOW - seconds(5), first_running=NOW, was_healthy=True)
    assert backoff.settle([_ready("a", born)], held, seen(spec())) == Backoff()


def test_a_sibling_that_stood_before_proves_nothing() -> None:
    """Else a group with one healthy VM would make and lose others without any patience."""
    assert backoff.settle([_ready("a", SERVING)], BIRTHS, seen(spec())) == BIRTHS


def test_one_that_was_counted_as_stillborn_and_serves_after_all_ends_the_patience() -> None:
    revived = replace(SERVING, boot_failure_counted=True)
    assert backoff.settle([_ready("a", revived)], BIRTHS, seen(spec())) == Backoff()


def test_a_refused_create_is_not_forgiven_because_an_old_vm_stands() -> None:
    assert backoff.settle([_ready("a", SERVING)], WAITING, seen(spec())) == WAITING


def test_after_a_failed_birth_the_next_waits_until_the_one_before_has_proved_itself() -> None:
    booting = {vm("n").vm_id: VmMemory(first_seen=NOW - seconds(10))}
    plan = decide(
        seen(
            spec(5),
            [*vms("ab"), vm("n", VmState.PENDING)],
            remembered={**booting, **{each.vm_id: SERVING for each in vms("ab")}},
            memory=Memory(accepted_count=5, backoff=BIRTHS),
        )
    )
    assert not plan.creates
    assert "SLOW_START" in {each.code for each in plan.refusals}


def test_a_trial_that_never_ends_is_one_failure_more_and_then_the_next_is_tried() -> None:
    hopeless = VmMemory(first_seen=NOW - seconds(3600))
    group = [*vms("ab"), vm("n", VmState.PENDING)]
    observation = seen(
        spec(5),
        group,
        remembered={**memories("ab"), **memories("n", hopeless)},
        memory=Memory(accepted_count=5, backoff=BIRTHS),
    )
    plan = decide(observation)
    assert not plan.creates
    assert plan.memory.backoff.failures == BIRTHS.failures + 1
    later = decide(replace(observation, now=NOW + seconds(5), memory=plan.memory))
    assert len(later.creates) == 1
    assert later.memory.backoff == plan.memory.backoff


def _ready(name: str, memory: VmMemory) -> Judged:
    return replace(judged(name, memory=memory), is_ready=True)
