from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.decide import decide
from orchestrator.model import Memory, Pause, Plan, Process, VmId, VmMemory, VmState, Wishes
from tests.support.given import (
    CONDEMNED,
    NOW,
    SERVING,
    UNHEALTHY,
    checked,
    memories,
    probes,
    seconds,
    seen,
    spec,
    vm,
    vms,
)


def codes(plan: Plan) -> set[str]:
    return {each.code for each in plan.refusals}


def paused(*processes: Process, until: float | None = None) -> Wishes:
    end = None if until is None else NOW + seconds(until)
    return Wishes(pause=Pause(processes=frozenset(processes), actor="ann", until=end))


def test_as_many_are_made_as_are_missing() -> None:
    assert len(decide(seen(spec(5), vms("ab"))).creates) == 3


def test_nothing_is_made_when_nothing_is_missing() -> None:
    plan = decide(seen(spec(3), vms("abc")))
    assert not plan.steps
    assert plan.is_settled


@pytest.mark.parametrize(
    "state", [VmState.PENDING, VmState.STOPPED, VmState.TRANSITIONING, VmState.UNKNOWN]
)
def test_what_may_run_for_all_we_know_counts(state: VmState) -> None:
    young = memories("a") | memories("b", VmMemory(first_seen=NOW))
    assert not decide(seen(spec(2), [vm("a"), vm("b", state)], remembered=young)).creates


@pytest.mark.parametrize("state", [VmState.TERMINATED, VmState.ERROR, VmState.DELETING])
def test_what_is_dead_or_on_its_way_out_does_not_count(state: VmState) -> None:
    assert len(decide(seen(spec(2), [vm("a"), vm("b", state)])).creates) == 1


def test_one_that_was_stopped_by_its_announced_shutdown_is_replaced_and_left_alone() -> None:
    ended = vm("b", VmState.STOPPED, shutdown_at=NOW - seconds(60))
    plan = decide(seen(spec(2), [vm("a"), ended]))
    assert len(plan.creates) == 1
    assert not plan.terminations
    assert "PARKED" in codes(plan)


def test_a_leaving_vm_is_replaced_before_it_goes() -> None:
    sick = seen(
        checked(3),
        vms("abc"),
        remembered=memories("a", CONDEMNED) | memories("bc"),
        probes=probes(a=UNHEALTHY),
    )
    plan = decide(sick)
    assert len(plan.creates) == 1
    assert not plan.terminations


def test_a_protected_vm_is_not_replaced_since_it_will_not_go() -> None:
    ends_soon = vm("c", shutdown_at=NOW + seconds(60), protected=True)
    assert not decide(seen(spec(3), [*vms("ab"), ends_soon])).steps


def test_no_more_are_made_ahead_than_the_surge_allows() -> None:
    soon = NOW + seconds(60)
    leaving = [vm(name, shutdown_at=soon) for name in "abcde"]
    assert len(decide(seen(spec(5, max_surge=2), leaving)).creates) == 2
    assert len(decide(seen(spec(5, max_surge=0), leaving)).creates) == 0


def test_a_hundred_a_cycle_are_the_most() -> None:
    assert len(decide(seen(spec(500))).creates) == 100


def test_a_pause_of_creates_is_respected_and_named() -> None:
    plan = decide(seen(spec(3), vms("ab"), wishes=paused(Process.CREATE)))
    assert not plan.creates
    assert any("ann" in each.message for each in plan.refusals if each.code == "PAUSED")


def test_a_pause_of_everything_pauses_creates() -> None:
    assert not decide(seen(spec(3), vms("ab"), wishes=paused())).creates


def test_a_pause_that_is_over_holds_nobody_up() -> None:
    assert decide(seen(spec(3), vms("ab"), wishes=paused(until=-1))).creates
    assert not decide(seen(spec(3), vms("ab"), wishes=paused(until=1))).creates


def test_a_pause_of_something_else_does_not_hold_up_creates() -> None:
    assert decide(seen(spec(3), vms("ab"), wishes=paused(Process.SCALE_IN))).creates


def test_a_group_that_lacks_a_vm_is_not_settled() -> None:
    waiting = Memory(
        accepted_count=3,
        backoff=replace(
            Memory().backoff, failures=1, until=NOW + seconds(5), spec_hash=spec().spec_hash
        ),
    )
    plan = decide(seen(spec(3), vms("ab"), memory=waiting))
    assert not plan.steps
    assert not plan.is_settled


def test_what_was_sent_away_without_an_answer_still_counts() -> None:
    in_doubt = replace(SERVING, terminating_since=NOW, terminate_failed_at=NOW)
    remembered = {VmId("a"): in_doubt, **memories("b")}
    assert not decide(seen(spec(2), vms("ab"), remembered=remembered)).creates
