from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.decide import decide
from orchestrator.model import (
    Intent,
    IntentPhase,
    Memory,
    Observation,
    Process,
    Reason,
    Removal,
    RequestId,
    TerminationWish,
    Vm,
    VmState,
    Wishes,
)
from tests.support.given import (
    CONDEMNED,
    NOW,
    SERVING,
    SPEC,
    UNHEALTHY,
    codes,
    ended,
    memories,
    paused,
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

LONG_GONE = Removal(since=NOW - timedelta(hours=25))
JUST_GONE = Removal(since=NOW - timedelta(hours=1))
WHOLE: dict[str, Any] = {"deleted_on_removal": True, "max_deletions_per_cycle": 9}


def removed(
    removal: Removal = LONG_GONE, present: tuple[Vm, ...] | None = None, **more: Any
) -> Observation:
    policy = more.pop("policy", WHOLE)
    memory = more.pop("memory", Memory(accepted_count=3))
    group = vms("abc") if present is None else present
    return seen(spec(0, **policy), group, memory=memory, removal=removal, **more)


def test_within_the_grace_its_vms_run_on_and_it_says_until_when() -> None:
    plan = decide(removed(JUST_GONE))
    assert not plan.steps
    assert plan.is_settled
    message = said(plan, "PRESET_REMOVED")
    assert "removed from its source at 2030-01-01 11:00:00 UTC" in message
    assert "until 2030-01-02 11:00:00 UTC" in message


@pytest.mark.parametrize(("hours", "number"), [(23.99, 0), (24, 3)])
def test_afterwards_they_go(hours: float, number: int) -> None:
    plan = decide(removed(Removal(since=NOW - timedelta(hours=hours))))
    assert list(ended(plan).values()) == [Reason.PRESET_REMOVED] * number


def test_unless_its_last_good_spec_did_not_say_so() -> None:
    plan = decide(removed(policy={}))
    assert not plan.steps
    assert "on_remove: keep" in said(plan, "PRESET_REMOVED")


def test_they_go_within_the_budget_of_a_cycle_and_of_a_window() -> None:
    assert len(decide(removed(policy={"deleted_on_removal": True})).terminations) == 1
    narrow = {**WHOLE, "max_deletions_per_window": 2}
    plan = decide(removed(policy=narrow))
    assert len(plan.terminations) == 2
    assert "BUDGET_SPENT" in codes(plan)


@pytest.mark.parametrize("removal", [JUST_GONE, LONG_GONE])
def test_what_needs_an_approval_says_so_from_the_first_and_waits_for_it(removal: Removal) -> None:
    plan = decide(removed(replace(removal, held_back="9 of 10 presets are removed")))
    assert not plan.steps
    assert "9 of 10" in said(plan, "REMOVALS_NEED_APPROVAL")


def test_what_is_kept_for_good_needs_no_approval() -> None:
    held = replace(LONG_GONE, held_back="9 of 10 presets are removed")
    assert codes(decide(removed(held, policy={}))) == {"PRESET_REMOVED"}


def test_an_unmanaged_preset_is_left_alone_for_ever() -> None:
    observation = removed()
    plan = decide(replace(observation, spec=replace(observation.spec, managed=False)))
    assert not plan.steps


def test_a_listing_that_is_not_whole_destroys_nothing() -> None:
    assert not decide(removed(complete=False)).steps


@pytest.mark.parametrize("processes", [(), (Process.SCALE_IN,)])
def test_a_pause_is_respected_and_told(processes: tuple[Process, ...]) -> None:
    plan = decide(removed(wishes=paused(*processes)))
    assert not plan.steps
    assert "ann" in said(plan, "PAUSED")


@pytest.mark.parametrize(
    ("other", "goes"),
    [
        (vm("x", protected=True), False),
        (vm("x", VmState.UNKNOWN), False),
        (vm("x", VmState.TRANSITIONING), False),
        (vm("x", VmState.DELETING), False),
        (vm("x", VmState.STOPPED), True),
        (vm("x", VmState.PENDING), True),
        (vm("x", VmState.ERROR), True),
        (vm("x", VmState.TERMINATED), True),
    ],
)
def test_what_may_not_be_touched_stays(other: Vm, *, goes: bool) -> None:
    assert ("x" in ended(decide(removed(present=(other,))))) is goes


def test_a_person_may_protect_one_and_is_told() -> None:
    plan = decide(removed(wishes=Wishes(protections=frozenset({vm_id("b")}))))
    assert set(ended(plan)) == {"a", "c"}
    assert said(plan, "PROTECTED").startswith("b")


def test_a_person_may_end_one_before_its_time() -> None:
    wishes = Wishes(terminations=(TerminationWish(vm_id=vm_id("a")),))
    assert ended(decide(removed(JUST_GONE, wishes=wishes))) == {"a": Reason.OPERATOR}


def test_nothing_is_judged_by_its_health_nor_made_any_more() -> None:
    remembered = memories("a", CONDEMNED) | memories("b")
    plan = decide(removed(JUST_GONE, vms("ab"), remembered=remembered, probes=probes(a=UNHEALTHY)))
    assert not plan.steps


def test_a_record_of_one_that_was_sent_away_is_left_to_the_cloud() -> None:
    gone = replace(SERVING, terminating_since=NOW - seconds(30))
    plan = decide(removed(present=(vm("x", VmState.TERMINATED),), remembered=memories("x", gone)))
    assert not plan.steps


def test_a_termination_that_failed_is_not_repeated_at_once() -> None:
    stuck = replace(SERVING, terminate_failed_at=NOW - seconds(5))
    assert not decide(removed(present=vms("x"), remembered=memories("x", stuck))).steps


def test_a_vm_that_arrives_late_goes_like_the_others() -> None:
    open_one = Intent(
        request_id=RequestId("request-of-n"),
        name="n",
        spec_hash=SPEC,
        phase=IntentPhase.SENT,
        sent_at=NOW - seconds(10),
        attempts=1,
    )
    memory = Memory(accepted_count=3, intents=(open_one,))
    waiting = decide(removed(present=(), memory=memory))
    assert len(waiting.memory.intents) == 1
    assert not waiting.creates
    arrived = decide(removed(present=vms("n"), memory=memory))
    assert ended(arrived) == {"n": Reason.PRESET_REMOVED}
    assert not arrived.memory.intents


def test_an_intent_of_which_nothing_comes_is_dropped_in_the_end() -> None:
    lost = Intent(
        request_id=RequestId("r"),
        name="n",
        spec_hash=SPEC,
        phase=IntentPhase.SENT,
        sent_at=NOW - seconds(120),
        attempts=1,
    )
    plan = decide(removed(present=(), memory=Memory(intents=(lost,))))
    assert not plan.memory.intents


def test_restored_within_the_grace_it_goes_on_as_if_nothing_had_happened() -> None:
    world = World(spec=spec(9))
    for _ in world.cycles(10):
        pass
    world.removal = Removal(since=world.now)
    world.spec = spec(0, **WHOLE)
    for plan in world.cycles(100):
        assert not plan.steps
    world.removal, world.spec = None, spec(9)
    for plan in world.cycles(10):
        assert not plan.steps
        assert not plan.refusals


def test_in_the_end_nothing_is_left() -> None:
    world = World(spec=spec(7), lag=seconds(30))
    for _ in world.cycles(3):
        pass
    world.removal = Removal(since=world.now)
    world.spec = spec(0, deleted_on_removal=True, removal_grace=seconds(60))
    for number, _ in enumerate(world.cycles(60)):
        if number % 7 == 0:
            world.restart()
    assert not world.bodies
    assert not world.memory.intents
