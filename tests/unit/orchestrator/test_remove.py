from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Memory,
    Observation,
    Pause,
    Plan,
    Process,
    Reason,
    Spec,
    TerminationWish,
    Vm,
    VmId,
    VmMemory,
    VmState,
    Wishes,
)
from tests.support.given import (
    CONDEMNED,
    HEALTHY,
    NOW,
    SERVING,
    SPEC,
    UNHEALTHY,
    UNKNOWN,
    checked,
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

BOOTING = VmMemory(first_seen=NOW - seconds(10))
SOON = NOW + seconds(60)


def codes(plan: Plan) -> set[str]:
    return {each.code for each in plan.refusals}


def ended(plan: Plan) -> dict[str, Reason]:
    return {str(step.vm.vm_id): step.reason for step in plan.terminations}


def one_sick(what: Spec, others: str = "bcd", **more: Any) -> Observation:
    """Three declared; `a` is condemned, its replacement is there."""
    facts: dict[str, Any] = {"probes": probes(a=UNHEALTHY), **more}
    return seen(
        what,
        vms(f"a{others}"),
        remembered=memories("a", CONDEMNED) | memories(others),
        **facts,
    )


def tried(ago: float, *, accepted: bool = False, doubtful: bool = False) -> VmMemory:
    at = NOW - seconds(ago)
    return replace(
        SERVING,
        terminating_since=at if accepted or doubtful else None,
        terminate_failed_at=None if accepted else at,
    )


# --- replacing ---------------------------------------------------------------------------------


def test_a_sick_vm_goes_when_its_replacement_serves_and_the_evidence_is_told() -> None:
    plan = decide(one_sick(checked(3)))
    assert ended(plan) == {"a": Reason.UNHEALTHY}
    assert "connection refused" in plan.terminations[0].evidence


def test_a_sick_vm_stays_while_its_replacement_boots() -> None:
    booting = seen(
        checked(3),
        [*vms("abc"), vm("n", VmState.PENDING)],
        remembered=memories("a", CONDEMNED) | memories("bc") | memories("n", BOOTING),
        probes=probes(a=UNHEALTHY),
    )
    plan = decide(booting)
    assert not plan.steps
    assert "WAITING_FOR_REPLACEMENT" in codes(plan)


@pytest.mark.parametrize("verdict", [UNKNOWN, HEALTHY])
def test_a_condemned_vm_stays_unless_a_probe_of_this_cycle_confirms_it(verdict: object) -> None:
    plan = decide(one_sick(checked(3), probes={vm_id("a"): verdict}))
    assert not plan.terminations
    assert "HEALTH_UNKNOWN" in codes(plan)


def test_silence_confirms_nothing() -> None:
    assert not decide(one_sick(checked(3), probes={})).terminations


def test_a_check_that_only_observes_destroys_nobody() -> None:
    plan = decide(one_sick(checked(3, observe_only=True), others="bc"))
    assert not plan.steps


def test_a_vm_near_its_shutdown_goes_once_it_is_replaced() -> None:
    group = [vm("a", shutdown_at=SOON), *vms("bcd")]
    assert ended(decide(seen(spec(3), group))) == {"a": Reason.TIMED_SHUTDOWN}


def test_a_vm_that_boots_for_too_long_is_replaced() -> None:
    overdue = VmMemory(first_seen=NOW - seconds(700))
    group = [vm("a", VmState.PENDING), *vms("bcd")]
    plan = decide(seen(spec(3), group, remembered=memories("a", overdue) | memories("bcd")))
    assert ended(plan) == {"a": Reason.BOOT_TIMEOUT}


# --- where nothing can surge -------------------------------------------------------------------


def test_without_surge_one_goes_first_as_far_as_may_be_unavailable() -> None:
    plan = decide(one_sick(checked(3, max_surge=0), others="bc"))
    assert ended(plan) == {"a": Reason.UNHEALTHY}


def test_without_surge_and_with_none_to_spare_nothing_moves_and_it_says_so() -> None:
    plan = decide(one_sick(checked(3, max_surge=0, max_unavailable=0), others="bc"))
    assert not plan.steps
    assert "NO_ROOM" in codes(plan)


def test_without_surge_a_second_one_waits_until_the_first_is_replaced() -> None:
    plan = decide(one_sick(checked(3, max_surge=0), others="b"))
    assert not plan.terminations


def test_without_surge_nobody_goes_while_creates_are_paused() -> None:
    pause = Wishes(pause=Pause(processes=frozenset({Process.CREATE})))
    plan = decide(one_sick(checked(3, max_surge=0), others="bc", wishes=pause))
    assert not plan.steps
    assert "PAUSED" in codes(plan)


def quota_was_full(until: float) -> Memory:
    return Memory(
        accepted_count=3,
        backoff=Backoff(
            failures=1, until=NOW + seconds(until), reason="QUOTA_EXCEEDED", spec_hash=SPEC
        ),
    )


def test_a_full_quota_lets_one_go_first() -> None:
    plan = decide(one_sick(checked(3), others="bc", memory=quota_was_full(10)))
    assert ended(plan) == {"a": Reason.UNHEALTHY}


def test_an_old_refusal_of_the_cloud_is_put_to_the_test_before_anybody_goes() -> None:
    plan = decide(one_sick(checked(3), others="bc", memory=quota_was_full(-10)))
    assert not plan.terminations
    assert len(plan.creates) == 1


# --- the dead ----------------------------------------------------------------------------------


def test_the_dead_are_removed_and_replaced_at_once() -> None:
    plan = decide(seen(spec(3), [*vms("ab"), vm("c", VmState.TERMINATED)]))
    assert ended(plan) == {"c": Reason.DEAD}
    assert len(plan.creates) == 1


def test_a_record_that_the_cloud_keeps_after_our_termination_is_seldom_asked_for_again() -> None:
    def kept(ago: float) -> Observation:
        group = [*vms("ab"), vm("c", VmState.TERMINATED)]
        remembered = memories("ab") | memories("c", tried(ago, accepted=True))
        return seen(spec(2), group, remembered=remembered)

    assert not decide(kept(599)).steps
    assert decide(kept(600)).terminations


def test_mere_records_cost_no_budget_and_failed_vms_do() -> None:
    ended_vms = [vm(name, VmState.TERMINATED) for name in "abc"]
    failed_vms = [vm(name, VmState.ERROR) for name in "abc"]
    assert len(decide(seen(spec(0), ended_vms)).terminations) == 3
    assert len(decide(seen(spec(0), failed_vms)).terminations) == 1


# --- the surplus -------------------------------------------------------------------------------


def test_the_surplus_goes_the_youngest_first() -> None:
    assert ended(decide(seen(spec(3), vms("abcd")))) == {"d": Reason.SURPLUS}


@pytest.mark.parametrize("state", [VmState.STOPPED, VmState.TRANSITIONING, VmState.UNKNOWN])
def test_surplus_that_is_a_persons_or_unknown_is_left_alone(state: VmState) -> None:
    plan = decide(seen(spec(0), [vm("a", state)]))
    assert not plan.steps
    assert "PARKED" in codes(plan)


def test_protected_vms_are_left_alone_whatever_is_wrong_with_them() -> None:
    group = [
        vm("a", protected=True),
        vm("b", VmState.ERROR, protected=True),
        vm("c", VmState.TERMINATED, protected=True),
        vm("d", shutdown_at=SOON, protected=True),
    ]
    plan = decide(seen(spec(0), group))
    assert not plan.steps
    assert {"PARKED", "PROTECTED"} <= codes(plan)


# --- budget, pause, wishes ---------------------------------------------------------------------


def test_at_most_a_tenth_goes_a_cycle_and_the_rest_is_told() -> None:
    plan = decide(seen(spec(10), [vm(f"vm-{number:02}") for number in range(30)]))
    assert len(plan.terminations) == 3
    assert "BUDGET_SPENT" in codes(plan)


def test_without_the_budget_all_of_the_surplus_would_go_at_once() -> None:
    declared = spec(10, max_deletions_per_cycle=30)
    plan = decide(seen(declared, [vm(f"vm-{number:02}") for number in range(30)]))
    assert len(plan.terminations) == 20


def test_a_budget_of_none_destroys_none() -> None:
    plan = decide(seen(spec(1, max_deletions_per_cycle=0), vms("abc")))
    assert not plan.terminations
    assert "BUDGET_SPENT" in codes(plan)


@pytest.mark.parametrize(
    ("process", "group", "reason"),
    [
        (Process.SCALE_IN, vms("abcd"), Reason.SURPLUS),
        (Process.REPLACE, (*vms("bcd"), vm("a", VmState.ERROR)), Reason.DEAD),
        (Process.REPLACE, (*vms("bcd"), vm("a", shutdown_at=SOON)), Reason.TIMED_SHUTDOWN),
    ],
)
def test_a_pause_stops_its_own_part_of_the_work(
    process: Process, group: tuple[Vm, ...], reason: Reason
) -> None:
    free: Observation = seen(spec(3), group)
    pause = Pause(processes=frozenset({process}), actor="ann", reason="disk work")
    plan = decide(replace(free, wishes=Wishes(pause=pause)))
    assert list(ended(decide(free)).values()) == [reason]
    assert not plan.terminations
    assert any("ann: disk work" in each.message for each in plan.refusals)


def test_a_pause_of_health_spares_the_sick() -> None:
    pause = Wishes(pause=Pause(processes=frozenset({Process.HEALTH})))
    plan = decide(one_sick(checked(3), wishes=pause))
    assert not plan.terminations
    assert "PAUSED" in codes(plan)


def wanted(*names: str) -> Wishes:
    return Wishes(
        terminations=tuple(
            TerminationWish(vm_id=VmId(name), actor="ann", reason="it smells") for name in names
        )
    )


def test_what_a_person_wants_gone_goes_and_the_person_is_named() -> None:
    plan = decide(seen(spec(3), vms("abc"), wishes=wanted("b")))
    assert ended(plan) == {"b": Reason.OPERATOR}
    assert "ann: it smells" in plan.terminations[0].evidence


def test_a_person_may_name_a_stopped_vm() -> None:
    plan = decide(seen(spec(1), [vm("a", VmState.STOPPED)], wishes=wanted("a")))
    assert ended(plan) == {"a": Reason.OPERATOR}


def test_a_wish_takes_the_place_of_the_surplus() -> None:
    """Else two would go where one is too many."""
    assert ended(decide(seen(spec(3), vms("abcd"), wishes=wanted("a")))) == {"a": Reason.OPERATOR}


@pytest.mark.parametrize(
    "by", [{"protections": frozenset({vm_id("b")})}, {}], ids=["a person", "the cloud"]
)
def test_a_wish_leaves_a_protected_vm_alone_unless_it_insists(by: dict[str, Any]) -> None:
    """The protection may be younger than the wish, and the gate knows only of the cloud's own."""
    present = (vm("a"), vm("b", protected=not by), vm("c"))
    wish = TerminationWish(vm_id=vm_id("b"))
    plan = decide(seen(spec(3), present, wishes=Wishes(terminations=(wish,), **by)))
    assert not plan.terminations
    assert codes(plan) == {"PROTECTED"}
    insisting = Wishes(terminations=(replace(wish, force=True),), **by)
    assert ended(decide(seen(spec(3), present, wishes=insisting))) == {"b": Reason.OPERATOR}


def test_a_wish_does_not_wait_for_the_budget() -> None:
    declared = spec(3, max_deletions_per_cycle=0)
    assert len(decide(seen(declared, vms("abc"), wishes=wanted("a", "b"))).terminations) == 2


def test_a_wish_is_not_carried_out_on_a_listing_that_is_not_whole() -> None:
    observation = seen(spec(3), vms("abc"), wishes=wanted("b"), complete=False)
    assert not decide(observation).steps


# --- terminations that fail, and that nobody answers -------------------------------------------


def test_a_failed_termination_is_tried_again_after_a_while_and_it_says_so() -> None:
    def group(ago: float) -> Observation:
        remembered = memories("a", tried(ago)) | memories("b")
        return seen(spec(0), [vm("a", VmState.ERROR)], remembered=remembered)

    assert not decide(group(29)).terminations
    assert "TERMINATION_FAILED" in codes(decide(group(29)))
    assert decide(group(30)).terminations


def test_one_that_cannot_be_deleted_does_not_eat_the_budget_of_the_others() -> None:
    failed = [vm("a", VmState.ERROR), vm("b", VmState.ERROR)]
    remembered = memories("a", tried(60)) | memories("b")
    assert list(ended(decide(seen(spec(0), failed, remembered=remembered)))) == ["b"]


def test_one_that_cannot_be_deleted_does_not_keep_another_sick_one_alive() -> None:
    undeletable = replace(CONDEMNED, terminate_failed_at=NOW - seconds(60))
    observation = seen(
        checked(3),
        vms("abcd"),
        remembered=memories("b", undeletable) | memories("a", CONDEMNED) | memories("cd"),
        probes=probes(a=UNHEALTHY, b=UNHEALTHY),
    )
    assert list(ended(decide(observation))) == ["a"]


def test_nobody_else_is_destroyed_in_place_of_one_that_may_be_going() -> None:
    in_doubt = memories("d", tried(10, doubtful=True)) | memories("abc")
    plan = decide(seen(spec(3), vms("abcd"), remembered=in_doubt))
    assert not plan.steps
    assert "TERMINATION_UNKNOWN" in codes(plan)


def test_without_the_doubt_a_lost_answer_would_cost_another_vm() -> None:
    refused = memories("d", tried(10)) | memories("abc")
    assert list(ended(decide(seen(spec(3), vms("abcd"), remembered=refused)))) == ["c"]


def test_a_wish_is_not_tried_again_while_its_vm_may_be_going() -> None:
    """Refused then, the VM would count as one that stays, and another one would go as surplus."""

    def group(ago: float) -> Observation:
        remembered = memories("d", tried(ago, doubtful=True)) | memories("abc")
        return seen(spec(3), vms("abcd"), remembered=remembered, wishes=wanted("d"))

    assert not decide(group(59)).terminations
    assert "TERMINATION_UNKNOWN" in codes(decide(group(59)))
    assert ended(decide(group(60))) == {"d": Reason.OPERATOR}


def test_the_one_in_doubt_is_tried_again_before_anybody_else() -> None:
    in_doubt = memories("a", tried(60, doubtful=True)) | memories("bcd")
    assert list(ended(decide(seen(spec(3), vms("abcd"), remembered=in_doubt)))) == ["a"]


def test_a_termination_that_was_accepted_and_did_not_happen_is_repeated() -> None:
    def group(ago: float) -> Observation:
        remembered = memories("ab") | memories("c", tried(ago, accepted=True))
        return seen(spec(2), vms("abc"), remembered=remembered)

    assert not decide(group(59)).steps
    assert list(ended(decide(group(60)))) == ["c"]


def test_one_that_the_cloud_began_to_delete_without_an_answer_and_did_not_end_is_repeated() -> None:
    def group(asked: VmMemory) -> Observation:
        remembered = memories("ab") | memories("c", asked)
        return seen(spec(2), [*vms("ab"), vm("c", VmState.DELETING)], remembered=remembered)

    assert not decide(group(tried(59, doubtful=True))).steps
    plan = decide(group(tried(60, doubtful=True)))
    assert list(ended(plan)) == ["c"]
    assert "got no answer" in plan.terminations[0].evidence


def test_what_somebody_else_deletes_is_left_to_the_cloud() -> None:
    deleting = [*vms("ab"), vm("c", VmState.DELETING)]
    for known in (SERVING, tried(600)):
        remembered = memories("ab") | memories("c", known)
        assert not decide(seen(spec(2), deleting, remembered=remembered)).steps


def test_a_repeated_termination_that_fails_is_not_tried_in_every_cycle() -> None:
    stubborn = replace(tried(600, accepted=True), terminate_failed_at=NOW - seconds(5))
    remembered = memories("ab") | memories("c", stubborn)
    assert not decide(seen(spec(2), vms("abc"), remembered=remembered)).steps


def test_what_was_protected_meanwhile_is_not_asked_for_again() -> None:
    remembered = memories("c", tried(600, accepted=True))
    assert not decide(seen(spec(0), [vm("c", protected=True)], remembered=remembered)).steps


BOOTING = VmMemory(first_seen=NOW - seconds(20), first_running=NOW - seconds(10))


def growing(failed_at: datetime | None = None, **policy: Any) -> Observation:
    """`d` was made in place of one that recovered, and does not serve yet."""
    remembered = memories("abc") | memories("d", replace(BOOTING, terminate_failed_at=failed_at))
    return seen(checked(3, **policy), vms("abcd"), remembered=remembered, probes=probes(d=UNKNOWN))


def test_the_surplus_is_who_does_not_serve_and_not_the_next_one_when_that_cannot_go() -> None:
    assert ended(decide(growing(max_unavailable=0))) == {"d": Reason.SURPLUS}
    stuck = decide(growing(NOW - seconds(5), max_unavailable=0))
    assert not stuck.steps
    assert "stay until those that shall stay serve" in said(stuck, "WAITING_FOR_REPLACEMENT")


def test_as_many_as_may_be_unavailable_may_be_surplus_though_they_serve() -> None:
    assert ended(decide(growing(NOW - seconds(5), max_unavailable=1))) == {"c": Reason.SURPLUS}
