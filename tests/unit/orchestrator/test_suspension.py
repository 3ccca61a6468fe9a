from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Fate,
    Memory,
    Observation,
    Outcome,
    Placement,
    Reason,
    Rollout,
    Shortage,
    VmId,
    VmMemory,
    VmState,
    Wishes,
)
from orchestrator.recall import recall, restarted
from tests.support.given import (
    CONDEMNED,
    LONG_AGO,
    NOW,
    SERVING,
    SPEC,
    UNHEALTHY,
    checked,
    codes,
    ended,
    leaving,
    memories,
    probes,
    said,
    seconds,
    seen,
    spec,
    vm,
    vm_id,
    vms,
)
from tests.support.world import World

BIRTHS = Backoff(
    failures=5, until=NOW - seconds(1), reason="BOOT_FAILED", message="n died", spec_hash=SPEC
)
RESTING = Memory(accepted_count=3, backoff=BIRTHS, suspended_since=LONG_AGO)


def resting(memory: Memory = RESTING, present: str = "abc", **more: Any) -> Observation:
    return seen(more.pop("what", checked(3)), vms(present), memory=memory, **more)


@pytest.mark.parametrize(
    ("failures", "most", "suspended"), [(4, 5, False), (5, 5, True), (1, 1, True), (99, 0, False)]
)
def test_after_so_many_failed_births_in_a_row_repair_is_suspended(
    failures: int, most: int, *, suspended: bool
) -> None:
    memory = Memory(accepted_count=3, backoff=replace(BIRTHS, failures=failures))
    plan = decide(resting(memory, what=checked(3, suspend_after=most)))
    assert (plan.memory.suspended_since == NOW) is suspended
    assert ("REPAIR_SUSPENDED" in codes(plan)) is suspended


def test_refused_creates_suspend_nothing() -> None:
    refused = replace(BIRTHS, reason="QUOTA_EXCEEDED")
    assert decide(resting(Memory(backoff=refused))).memory.suspended_since is None


def test_it_says_since_when_what_failed_and_how_to_go_on() -> None:
    message = said(decide(resting()), "REPAIR_SUSPENDED")
    assert "since 2029-12-29 12:00:00 UTC" in message
    assert "n died" in message
    assert "vmshepherd preset resume web" in message


def test_while_it_is_nothing_is_destroyed_for_its_health_and_nothing_replaced() -> None:
    remembered = memories("a", CONDEMNED) | memories("bc")
    probed: dict[str, Any] = {"remembered": remembered, "probes": probes(a=UNHEALTHY)}
    plan = decide(resting(**probed))
    assert not plan.steps
    assert leaving(decide(resting(Memory(accepted_count=3), **probed))) == {"a": Reason.UNHEALTHY}


def test_while_it_is_a_vm_that_never_boots_is_left_alone() -> None:
    overdue = VmMemory(first_seen=NOW - seconds(700), boot_failure_counted=True)
    remembered = memories("n", overdue) | memories("ab")
    plan = decide(
        seen(spec(3), (*vms("ab"), vm("n", VmState.PENDING)), remembered=remembered, memory=RESTING)
    )
    assert not plan.steps


def test_while_it_is_missing_vms_are_tried_one_at_a_time() -> None:
    assert len(decide(resting(present="a")).creates) == 1


def test_while_it_is_what_the_cloud_gave_up_is_still_cleared_away() -> None:
    group = (*vms("abc"), vm("d", VmState.ERROR))
    assert ended(decide(seen(checked(3), group, memory=RESTING))) == {"d": Reason.DEAD}


def test_a_changed_spec_ends_it() -> None:
    changed = replace(checked(3), spec_hash="spec-2")
    assert decide(resting(what=changed)).memory.suspended_since is None


def test_a_vm_of_the_spec_that_stands_ends_it() -> None:
    born_later = replace(SERVING, first_seen=NOW)
    plan = decide(resting(remembered=memories("ab") | memories("c", born_later)))
    assert plan.memory.suspended_since is None
    assert plan.memory.backoff == Backoff()


def test_one_that_stood_before_does_not() -> None:
    assert decide(resting()).memory.suspended_since == LONG_AGO


def test_a_takeover_does_not_end_it_because_old_ones_stand() -> None:
    memory = restarted(decide(resting()).memory, NOW)
    plan = decide(seen(checked(3), vms("abc"), remembered={}, memory=memory))
    assert plan.memory.suspended_since == LONG_AGO
    assert plan.memory.backoff.failures == 5


@pytest.mark.parametrize("proof", [0, 30])
def test_after_a_takeover_one_that_comes_to_stand_ends_it_all_the_same(proof: float) -> None:
    memory = restarted(decide(resting(present="ab")).memory, NOW)
    what = checked(3, min_healthy_time=seconds(proof))
    plan = decide(seen(what, vms("abn"), remembered={}, memory=memory))
    assert plan.memory.suspended_since is None


def test_an_accepted_create_does_not_end_it_though_the_last_one_was_refused() -> None:
    refused = replace(BIRTHS, failures=6, reason="QUOTA_EXCEEDED")
    plan = decide(resting(replace(RESTING, backoff=refused), present="ab"))
    (step,) = plan.creates
    outcome = Outcome(step=step, fate=Fate.DONE, vm_id=vm_id("n"))
    memory = recall(plan, [outcome], spec=checked(3), now=NOW)
    assert (memory.backoff.reason, memory.backoff.failures) == ("BOOT_FAILED", 6)
    assert memory.suspended_since == LONG_AGO


# --- resuming ----------------------------------------------------------------------------------

STUCK = replace(
    RESTING,
    shortages=(Shortage(placement=Placement(), until=NOW + seconds(60), reason="NO_CAPACITY"),),
    rollout=Rollout(spec_hash=SPEC, stopped_at=NOW, stop_message="n died"),
    resumes_seen=2,
)


def test_a_person_who_resumes_the_preset_has_everything_tried_again() -> None:
    memory = decide(resting(STUCK, wishes=Wishes(resumes=3), complete=False)).memory
    assert memory.backoff == Backoff()
    assert memory.suspended_since is None
    assert memory.shortages == ()
    assert memory.rollout == Rollout(spec_hash=SPEC)
    assert memory.resumes_seen == 3


def test_a_resumption_counts_once() -> None:
    memory = decide(resting(STUCK, wishes=Wishes(resumes=2), complete=False)).memory
    assert memory.suspended_since == LONG_AGO
    assert memory.rollout == STUCK.rollout


def test_a_counter_that_went_backwards_resumes_nothing_and_the_next_person_is_heard() -> None:
    """Its record was lost: nobody wished anything."""
    memory = decide(resting(STUCK, wishes=Wishes(resumes=0), complete=False)).memory
    assert memory.suspended_since == LONG_AGO
    assert memory.resumes_seen == 0
    again = decide(resting(memory, wishes=Wishes(resumes=1), complete=False)).memory
    assert again.suspended_since is None


# --- whole lives -------------------------------------------------------------------------------


def test_a_preset_whose_vms_never_become_healthy_stops_churning() -> None:
    world = World(spec=checked(3))
    for _ in world.cycles(10):
        pass
    world.spec = replace(world.spec, spec_hash="bad")
    for body in world.bodies:
        body.is_hung = True
    for _ in world.cycles(400):
        for body in world.bodies:
            body.is_hung = True
    made = world.number
    for _ in world.cycles(200):
        for body in world.bodies:
            body.is_hung = True
    assert world.number == made
    assert len(world.alive()) >= 3


def test_two_presets_resumed_after_the_cause_is_gone_are_whole_again() -> None:
    world = World(spec=checked(3), is_stillborn=True)
    for _ in world.cycles(100):
        pass
    assert world.memory.suspended_since is not None
    world.is_stillborn = False
    world.wishes = Wishes(resumes=1)
    last = list(world.cycles(20))[-1]
    assert len(world.serving()) == 3
    assert last.is_settled
    assert VmId("vm-1") not in world.memory.vms
