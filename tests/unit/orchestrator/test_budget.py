from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.budget import recent
from orchestrator.decide import decide
from orchestrator.model import (
    Deletion,
    Fate,
    Memory,
    Outcome,
    Plan,
    Reason,
    Terminate,
    VmState,
)
from orchestrator.recall import recall, restarted
from tests.support.given import (
    CONDEMNED,
    NOW,
    SERVING,
    UNHEALTHY,
    checked,
    codes,
    ended,
    memories,
    probes,
    said,
    seconds,
    seen,
    spec,
    vm,
    vms,
)


def gone(*ago: float, for_health: bool = False) -> tuple[Deletion, ...]:
    return tuple(Deletion(at=NOW - seconds(each), for_health=for_health) for each in ago)


def shrinking(number: int = 6, *, deletions: tuple[Deletion, ...] = (), **policy: Any) -> Plan:
    """One declared, so many more there."""
    memory = Memory(accepted_count=1, deletions=deletions)
    return decide(seen(spec(1, **policy), vms("abcdefghij"[: number + 1]), memory=memory))


def test_a_tenth_of_a_group_goes_in_a_cycle_and_one_of_a_small_one() -> None:
    assert len(shrinking().terminations) == 1
    many = tuple(vm(f"v{number:03}") for number in range(40))
    memory = Memory(accepted_count=35)
    assert len(decide(seen(spec(35), many, memory=memory)).terminations) == 4


@pytest.mark.parametrize(("most", "number"), [(0, 0), (3, 3), (99, 6)])
def test_or_as_many_as_the_preset_says(most: int, number: int) -> None:
    plan = shrinking(max_deletions_per_cycle=most)
    assert len(plan.terminations) == number
    assert ("BUDGET_SPENT" in codes(plan)) is (number < 6)


def test_it_says_how_many_still_have_to_go_and_what_the_budget_is() -> None:
    message = said(shrinking(max_deletions_per_cycle=2), "BUDGET_SPENT")
    assert message == "VMs still to go: 4; budget of a cycle: 2"


def test_within_a_window_no_more_go_than_the_preset_says() -> None:
    spent = gone(10, 599)
    plan = shrinking(deletions=spent, max_deletions_per_cycle=9, max_deletions_per_window=5)
    assert len(plan.terminations) == 3
    assert "2 were destroyed within 10 min, and 5 are allowed" in said(plan, "BUDGET_SPENT")


def test_what_went_before_the_window_does_not_count() -> None:
    plan = shrinking(
        deletions=gone(600, 601), max_deletions_per_cycle=9, max_deletions_per_window=5
    )
    assert len(plan.terminations) == 5


def test_a_window_that_is_overspent_lets_nobody_go() -> None:
    plan = shrinking(deletions=gone(1, 2, 3), max_deletions_per_window=2)
    assert not plan.terminations
    assert not plan.is_settled


def test_wishes_of_people_and_mere_records_are_not_bounded() -> None:
    group = [*vms("ab"), vm("x", VmState.TERMINATED), vm("y", VmState.TERMINATED)]
    plan = decide(seen(spec(2, max_deletions_per_cycle=0), group))
    assert ended(plan) == {"x": Reason.DEAD, "y": Reason.DEAD}


def test_what_may_be_going_already_is_tried_before_others_spend_the_budget() -> None:
    doubtful = replace(
        SERVING, terminating_since=NOW - seconds(61), terminate_failed_at=NOW - seconds(61)
    )
    refused = replace(SERVING, terminate_failed_at=NOW - seconds(61))
    remembered = memories("a", doubtful) | memories("c", refused) | memories("b")
    assert set(ended(decide(seen(spec(1), vms("abc"), remembered=remembered)))) == {"a"}


def test_also_before_what_the_cloud_gave_up() -> None:
    doubtful = replace(
        SERVING, terminating_since=NOW - seconds(61), terminate_failed_at=NOW - seconds(61)
    )
    remembered = memories("a", doubtful) | memories("bx")
    group = (*vms("ab"), vm("x", VmState.ERROR))
    assert set(ended(decide(seen(spec(1), group, remembered=remembered)))) == {"a"}


def test_what_no_window_reaches_is_forgotten() -> None:
    kept = shrinking(number=0, deletions=gone(10, 599, 601)).memory.deletions
    assert kept == gone(10, 599)
    longer = shrinking(number=0, deletions=gone(601), breaker_window=seconds(900))
    assert longer.memory.deletions == gone(601)
    assert recent(gone(9, 11), seconds(10), NOW) == list(gone(9))


@pytest.mark.parametrize(
    ("fate", "counted"),
    [(Fate.DONE, True), (Fate.UNKNOWN, True), (Fate.FAILED, False), (Fate.UNTRIED, False)],
)
def test_what_is_gone_or_may_be_going_is_counted(fate: Fate, *, counted: bool) -> None:
    plan = shrinking()
    outcome = Outcome(step=plan.terminations[0], fate=fate)
    memory = recall(plan, [outcome], spec=spec(1), now=NOW)
    assert bool(memory.deletions) is counted


def test_a_record_that_is_cleared_away_was_no_vm() -> None:
    step = Terminate(vm=vm("x", VmState.TERMINATED), reason=Reason.DEAD, evidence="ended")
    plan = Plan(steps=(step,))
    assert not recall(plan, [Outcome(step=step, fate=Fate.DONE)], spec=spec(1), now=NOW).deletions


def test_a_new_holder_counts_all_of_them_as_of_now() -> None:
    """Its clock is another one: a window may be longer for it, and never shorter."""
    memory = restarted(Memory(deletions=gone(599)), NOW)
    assert memory.deletions == gone(0)


# --- the breaker's window ----------------------------------------------------------------------


def failing(*, deletions: tuple[Deletion, ...], verdict: object = UNHEALTHY, **policy: Any) -> Plan:
    """Four of which one is condemned."""
    remembered = memories("a", CONDEMNED) | memories("bcd")
    memory = Memory(accepted_count=4, deletions=deletions)
    return decide(
        seen(
            checked(4, **policy),
            vms("abcd"),
            remembered=remembered,
            memory=memory,
            probes=probes(a=verdict),  # type: ignore[arg-type]
        )
    )


def test_what_was_destroyed_for_its_health_lately_counts_with_what_fails_now() -> None:
    plan = failing(deletions=gone(10, 20, for_health=True))
    assert "1 of 4" in said(plan, "BREAKER_OPEN")
    assert "2 were destroyed" in said(plan, "BREAKER_OPEN")


@pytest.mark.parametrize(
    "deletions", [gone(10, 20), gone(600, 700, for_health=True), gone(10, for_health=True)]
)
def test_what_went_for_other_reasons_or_long_ago_or_alone_does_not(
    deletions: tuple[Deletion, ...],
) -> None:
    assert "BREAKER_OPEN" not in codes(failing(deletions=deletions))


def test_a_preset_of_which_nothing_fails_has_its_breaker_closed_whatever_was_lost() -> None:
    memory = Memory(accepted_count=3, deletions=gone(*range(9), for_health=True))
    assert "BREAKER_OPEN" not in codes(decide(seen(checked(3), vms("abc"), memory=memory)))


def test_the_window_is_the_presets_own() -> None:
    old = gone(700, 800, for_health=True)
    assert "BREAKER_OPEN" in codes(failing(deletions=old, breaker_window=seconds(900)))
