from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator import leaving
from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Cloud,
    Judged,
    Memory,
    Method,
    Process,
    Reason,
    VmMemory,
    VmState,
    VmStatus,
)
from tests.support.given import (
    CONDEMNED,
    NOW,
    SPEC,
    UNHEALTHY,
    checked,
    ended,
    judged,
    memories,
    paused,
    probes,
    seconds,
    seen,
    spec,
    vm,
    vms,
)

OVERDUE = VmMemory(first_seen=NOW - seconds(700))
SUSPENDED = Memory(suspended_since=NOW)
SICK = judged("a", VmStatus.UNHEALTHY, memory=CONDEMNED)


def why(one: Judged, memory: Memory | None = None, **policy: Any) -> Reason | None:
    return leaving.why_leave(one, memory or Memory(), seen(checked(3, **policy)))


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (SICK, Reason.UNHEALTHY),
        (judged("a", VmStatus.NEARBY_SHUTDOWN), Reason.TIMED_SHUTDOWN),
        (judged("a", VmStatus.AFTER_TIME_SHUTDOWN), Reason.TIMED_SHUTDOWN),
        (
            judged("a", VmStatus.PENDING, state=VmState.PENDING, memory=OVERDUE),
            Reason.BOOT_TIMEOUT,
        ),
        (judged("a", VmStatus.STOPPED, state=VmState.STOPPED), None),
        (judged("a", VmStatus.UNKNOWN, state=VmState.UNKNOWN), None),
        (judged("a", VmStatus.KEPT), None),
        (judged("a"), None),
    ],
)
def test_each_status_has_its_reason_to_leave_or_none(one: Judged, reason: Reason | None) -> None:
    assert why(one) is reason


@pytest.mark.parametrize(
    "status", [VmStatus.UNHEALTHY, VmStatus.NEARBY_SHUTDOWN, VmStatus.AFTER_TIME_SHUTDOWN]
)
def test_what_is_protected_always_stays(status: VmStatus) -> None:
    assert why(judged("a", status, protected=True)) is None


def test_a_stopped_vm_is_replaced_where_the_preset_says_so() -> None:
    stopped = judged("a", VmStatus.STOPPED, state=VmState.STOPPED)
    assert why(stopped, stopped_are_replaced=True) is Reason.STOPPED


def test_while_repair_is_suspended_nobody_leaves_for_health_or_a_slow_boot() -> None:
    booting = judged("a", VmStatus.PENDING, state=VmState.PENDING, memory=OVERDUE)
    assert why(SICK, SUSPENDED) is None
    assert why(booting, SUSPENDED) is None
    assert why(judged("a", VmStatus.NEARBY_SHUTDOWN), SUSPENDED) is Reason.TIMED_SHUTDOWN


def test_under_an_open_breaker_nobody_leaves_for_health() -> None:
    assert why(SICK, Memory(breaker_since=NOW)) is None


def test_a_boot_is_timed_anew_after_a_repair() -> None:
    repaired = replace(OVERDUE, repaired_at=NOW - seconds(60))
    assert why(judged("a", VmStatus.PENDING, state=VmState.PENDING, memory=repaired)) is None


def test_one_that_can_still_be_repaired_stays() -> None:
    able = seen(checked(3, reboots=1), cloud=Cloud(methods=frozenset({Method.REBOOT})))
    assert leaving.why_leave(SICK, Memory(), able) is None
    assert leaving.next_repair(SICK, able) is Method.REBOOT
    tried = replace(SICK, memory=replace(CONDEMNED, reboots=1))
    assert leaving.why_leave(tried, Memory(), able) is Reason.UNHEALTHY


@pytest.mark.parametrize(
    ("reason", "process"),
    [
        (Reason.UNHEALTHY, Process.HEALTH),
        (Reason.OUTDATED, Process.ROLLOUT),
        (Reason.MAX_LIFETIME, Process.REPLACE),
        (Reason.STOPPED, Process.REPLACE),
        (Reason.BOOT_TIMEOUT, Process.REPLACE),
        (Reason.TIMED_SHUTDOWN, Process.REPLACE),
    ],
)
def test_each_reason_belongs_to_a_part_of_the_work_that_can_be_paused(
    reason: Reason, process: Process
) -> None:
    assert leaving.process_for(reason) is process


# --- stopped VMs, in whole plans ---------------------------------------------------------------

STOPPED = (*vms("ab"), vm("c", VmState.STOPPED))


def test_a_replaced_stopped_vm_goes_only_after_its_successor_is_there() -> None:
    what = spec(3, stopped_are_replaced=True)
    first = decide(seen(what, STOPPED))
    assert len(first.creates) == 1
    assert not first.terminations
    assert ended(decide(seen(what, (*STOPPED, vm("n"))))) == {"c": Reason.STOPPED}


def test_by_default_a_stopped_vm_is_parked_and_counts() -> None:
    assert not decide(seen(spec(3), STOPPED)).steps


def test_a_pause_of_replacing_parks_it() -> None:
    what = spec(3, stopped_are_replaced=True)
    assert not decide(seen(what, STOPPED, wishes=paused(Process.REPLACE))).steps


def test_a_sick_vm_is_not_replaced_for_a_verdict_that_is_withheld() -> None:
    births = Backoff(failures=5, until=NOW, reason="BOOT_FAILED", spec_hash=SPEC)
    memory = Memory(accepted_count=3, backoff=births, suspended_since=NOW)
    plan = decide(
        seen(
            checked(3),
            vms("abc"),
            remembered=memories("a", CONDEMNED) | memories("bc"),
            memory=memory,
            probes=probes(a=UNHEALTHY),
        )
    )
    assert not plan.steps
