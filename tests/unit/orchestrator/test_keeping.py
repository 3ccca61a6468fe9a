from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Fate,
    Keep,
    Memory,
    Observation,
    Outcome,
    Plan,
    Process,
    Reason,
    TerminationWish,
    Vm,
    VmId,
    VmMemory,
    VmState,
    VmStatus,
    Wishes,
)
from orchestrator.recall import recall, restarted
from tests.support.given import (
    CONDEMNED,
    NOW,
    SERVING,
    SPEC,
    UNHEALTHY,
    checked,
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

KEPT = replace(CONDEMNED, kept_since=NOW - timedelta(hours=2))
OVERDUE = VmMemory(first_seen=NOW - seconds(700), boot_failure_counted=True)


def sick(present: Iterable[Vm] = (), *, what: Any = None, **more: Any) -> Observation:
    """`a` is condemned and its replacement is there."""
    facts: dict[str, Any] = {"probes": probes(a=UNHEALTHY), **more}
    remembered = {**memories("a", CONDEMNED), **memories("bcd"), **facts.pop("remembered", {})}
    group = (*vms("abcd"), *present)
    return seen(what or checked(3, keep_failed=1), group, remembered=remembered, **facts)


def studying(memory: VmMemory = KEPT, state: VmState = VmState.RUNNING, **more: Any) -> Observation:
    """`k` is kept for study, beside a whole group."""
    what = more.pop("what", checked(3, keep_failed=1))
    kept = vm("k", state, protected=more.pop("protected", False))
    remembered = memories("abc") | memories("k", memory)
    if "memory_of" in more:
        more["memory"] = more.pop("memory_of")
    return seen(what, (*vms("abc"), kept), remembered=remembered, **more)


def kept(plan: Plan) -> dict[str, Reason]:
    return {str(step.vm.vm_id): step.reason for step in plan.keeps}


@pytest.mark.parametrize(
    ("failed", "memory", "reason"),
    [
        (vm("a"), CONDEMNED, Reason.UNHEALTHY),
        (vm("a", VmState.PENDING), OVERDUE, Reason.BOOT_TIMEOUT),
        (vm("a", VmState.ERROR), SERVING, Reason.DEAD),
    ],
)
def test_what_would_be_destroyed_for_its_failure_is_kept_instead(
    failed: Vm, memory: VmMemory, reason: Reason
) -> None:
    plan = decide(
        seen(
            checked(3, keep_failed=1),
            (failed, *vms("bcd")),
            remembered=memories("a", memory) | memories("bcd"),
            probes=probes(a=UNHEALTHY),
        )
    )
    assert kept(plan) == {"a": reason}
    assert not plan.terminations
    assert plan.keeps[0].evidence


def test_by_default_nothing_is_kept() -> None:
    assert ended(decide(sick(what=checked(3)))) == {"a": Reason.UNHEALTHY}


@pytest.mark.parametrize(
    "other",
    [vm("d"), vm("d", VmState.TERMINATED), vm("d", shutdown_at=NOW + seconds(60))],
    ids=["surplus", "a record", "near its shutdown"],
)
def test_nothing_else_is_ever_kept(other: Vm) -> None:
    plan = decide(seen(checked(3, keep_failed=9), (*vms("abc"), other, *vms("e"))))
    assert not plan.keeps
    assert plan.terminations


def test_no_more_are_kept_than_the_preset_says() -> None:
    present = [vm("x", VmState.ERROR), vm("y", VmState.ERROR), vm("z", VmState.ERROR)]
    what = spec(3, keep_failed=2, max_deletions_per_cycle=9)
    plan = decide(seen(what, (*vms("abc"), *present)))
    assert len(plan.keeps) == 2
    assert len(plan.terminations) == 1


def test_where_others_are_kept_already_there_is_so_much_less_room() -> None:
    known = memories("k", KEPT)
    plan = decide(sick([vm("k")], remembered=known))
    assert ended(plan) == {"a": Reason.UNHEALTHY}
    assert not plan.keeps


def test_a_kept_vm_counts_no_more_and_is_not_judged() -> None:
    plan = decide(studying(probes=probes(k=UNHEALTHY)))
    assert {each.status for each in plan.judged if each.vm.vm_id == "k"} == {VmStatus.KEPT}
    assert not plan.steps
    assert plan.is_settled


def test_people_are_told_whom_they_may_study_and_until_when() -> None:
    message = said(decide(studying()), "KEPT_FOR_STUDY")
    assert message.startswith("k: ")
    assert "2030-01-02 10:00:00 UTC" in message
    assert "vm terminate" in message


def test_its_time_ends() -> None:
    old = replace(KEPT, kept_since=NOW - timedelta(hours=24))
    plan = decide(studying(old))
    assert ended(plan) == {"k": Reason.STUDY_OVER}
    assert "kept for study since 2029-12-31 12:00:00 UTC" in plan.terminations[0].evidence


def test_where_the_preset_keeps_fewer_the_oldest_goes() -> None:
    younger = replace(KEPT, kept_since=NOW)
    remembered = memories("abc") | memories("k", KEPT) | memories("l", younger)
    what = checked(3, keep_failed=1)
    plan = decide(seen(what, (*vms("abc"), vm("k"), vm("l")), remembered=remembered))
    assert ended(plan) == {"k": Reason.STUDY_OVER}


def test_the_end_of_a_study_spends_the_budget() -> None:
    plan = decide(studying(what=checked(3, keep_failed=0, max_deletions_per_cycle=0)))
    assert not plan.terminations
    assert "BUDGET_SPENT" in {each.code for each in plan.refusals}


@pytest.mark.parametrize("processes", [(), (Process.REPLACE,)])
def test_the_end_of_a_study_is_paused_like_any_replacement(processes: tuple[Process, ...]) -> None:
    what = checked(3, keep_failed=0)
    plan = decide(studying(what=what, wishes=paused(*processes)))
    assert not plan.terminations
    assert "ann" in said(plan, "PAUSED")


def test_a_protected_vm_is_studied_for_as_long_as_it_is_protected() -> None:
    assert not decide(studying(what=checked(3, keep_failed=0), protected=True)).terminations


def test_a_termination_that_failed_is_not_repeated_at_once() -> None:
    stuck = replace(KEPT, terminate_failed_at=NOW - seconds(5))
    assert not decide(studying(stuck, what=checked(3, keep_failed=0))).terminations


def test_a_person_may_end_it_earlier() -> None:
    wishes = Wishes(terminations=(TerminationWish(vm_id=vm_id("k")),))
    assert ended(decide(studying(wishes=wishes))) == {"k": Reason.OPERATOR}


def test_a_person_who_wants_a_failed_vm_gone_does_not_have_it_kept() -> None:
    wishes = Wishes(terminations=(TerminationWish(vm_id=vm_id("a")),))
    plan = decide(sick(wishes=wishes))
    assert ended(plan) == {"a": Reason.OPERATOR}
    assert not plan.keeps


@pytest.mark.parametrize("state", [VmState.TERMINATED, VmState.DELETING])
def test_one_that_the_cloud_ended_meanwhile_is_kept_no_more(state: VmState) -> None:
    plan = decide(studying(state=state))
    assert VmStatus.KEPT not in {each.status for each in plan.judged}
    assert not plan.keeps


@pytest.mark.parametrize("state", [VmState.ERROR, VmState.STOPPED, VmState.PENDING])
def test_one_that_somebody_works_on_stays_kept(state: VmState) -> None:
    plan = decide(studying(state=state))
    assert VmStatus.KEPT in {each.status for each in plan.judged}
    assert not plan.steps


def test_a_kept_vm_does_not_stand_in_for_a_missing_one_nor_for_a_surplus() -> None:
    remembered = memories("ab") | memories("k", KEPT)
    plan = decide(seen(checked(3, keep_failed=1), (*vms("ab"), vm("k")), remembered=remembered))
    assert len(plan.creates) == 1
    none_left = decide(seen(checked(0, keep_failed=1), [vm("k")], remembered=memories("k", KEPT)))
    assert not none_left.steps
    assert none_left.is_settled


def test_what_was_kept_for_its_health_counts_for_the_breaker_like_what_was_destroyed() -> None:
    """Else a group could lose one VM after the other to the shelf, and nobody would stop it."""
    lately = replace(CONDEMNED, kept_since=NOW - seconds(60))
    remembered = memories("abc") | memories("d", CONDEMNED) | memories("kl", lately)
    group = (*vms("abcd"), vm("k"), vm("l"))
    plan = decide(
        seen(
            checked(4, keep_failed=3),
            group,
            remembered=remembered,
            probes=probes(d=UNHEALTHY),
        )
    )
    assert "2 were destroyed or kept for it lately" in said(plan, "BREAKER_OPEN")
    never_booted = replace(OVERDUE, kept_since=NOW - seconds(60))
    for harmless in (KEPT, never_booted):
        other = decide(
            seen(
                checked(4, keep_failed=3),
                group,
                remembered=remembered | memories("kl", harmless),
                probes=probes(d=UNHEALTHY),
            )
        )
        assert "BREAKER_OPEN" not in {each.code for each in other.refusals}


def test_it_is_remembered_from_the_moment_it_is_set_aside_through_every_takeover() -> None:
    plan = decide(sick())
    (step,) = plan.keeps
    assert isinstance(step, Keep)
    outcome = Outcome(step=step, fate=Fate.DONE)
    memory = recall(plan, [outcome], spec=checked(3), now=NOW)
    assert memory.vms[VmId("a")].kept_since == NOW
    assert restarted(memory, NOW + seconds(60)).vms[VmId("a")].kept_since == NOW
    untried = recall(plan, [Outcome(step=step, fate=Fate.UNTRIED)], spec=checked(3), now=NOW)
    assert untried.vms[VmId("a")].kept_since is None


@pytest.mark.parametrize(
    ("reason", "until", "goes"),
    [
        ("QUOTA_EXCEEDED", 0, True),
        ("QUOTA_EXCEEDED", 5, False),
        ("NO_CAPACITY", 0, False),
    ],
)
def test_where_a_quota_keeps_one_from_being_made_one_that_is_only_studied_makes_room(
    reason: str,
    until: float,
    goes: bool,  # noqa: FBT001
) -> None:
    full = Backoff(failures=2, until=NOW + seconds(until), reason=reason, spec_hash=SPEC)
    missing = decide(
        studying(what=checked(4, keep_failed=1), memory_of=Memory(accepted_count=4, backoff=full))
    )
    assert (ended(missing) == {"k": Reason.STUDY_OVER}) is goes
    assert not ended(decide(studying(memory_of=Memory(accepted_count=3, backoff=full))))
