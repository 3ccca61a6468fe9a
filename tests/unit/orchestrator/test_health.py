from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator import health
from orchestrator.model import Judged, Observation, Probe, VmId, VmMemory, VmState, VmStatus
from tests.support.given import (
    CONDEMNED,
    HEALTHY,
    LONG_AGO,
    NOW,
    SERVING,
    UNHEALTHY,
    UNKNOWN,
    checked,
    judged,
    probes,
    seconds,
    seen,
    spec,
    vm,
)

# One that runs since a while and has not passed its check yet.
NEWBORN = VmMemory(first_seen=NOW - seconds(60), first_running=NOW - seconds(30))
FAILING = replace(SERVING, failures=2, failing_since=NOW - seconds(40), passes=0, ready_since=None)


def one(observation: Observation) -> Judged:
    (only,) = health.judge_all(observation)
    return only


def after(memory: VmMemory, *verdicts: Probe, every: float = 15) -> VmMemory:
    """What is remembered after probes at intervals, the last of them now."""
    for number, probe in enumerate(verdicts):
        at = NOW - seconds(every * (len(verdicts) - 1 - number))
        memory = health.remember_probe(memory, probe, checked(), at)
    return memory


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (VmState.PENDING, VmStatus.PENDING),
        (VmState.STOPPED, VmStatus.STOPPED),
        (VmState.TRANSITIONING, VmStatus.UNKNOWN),
        (VmState.DELETING, VmStatus.DELETING),
        (VmState.TERMINATED, VmStatus.TERMINATED),
        (VmState.ERROR, VmStatus.ERROR),
        (VmState.UNKNOWN, VmStatus.UNKNOWN),
        (VmState.RUNNING, VmStatus.RUNNING),
    ],
)
def test_each_state_of_the_cloud_has_a_status_and_words(state: VmState, status: VmStatus) -> None:
    told = one(seen(spec(), [vm("a", state)]))
    assert told.status is status
    assert told.reason


def test_the_words_of_the_cloud_are_passed_on() -> None:
    told = one(seen(spec(), [vm("a", VmState.ERROR, fault="no valid host")]))
    assert "no valid host" in told.reason


def test_vms_are_judged_in_the_order_of_their_ids() -> None:
    told = health.judge_all(seen(spec(), [vm("c"), vm("a"), vm("b")]))
    assert [each.vm.vm_id for each in told] == ["a", "b", "c"]


def test_a_running_vm_without_a_check_is_ready() -> None:
    told = one(seen(spec(), [vm("a")], remembered={}))
    assert told.is_ready
    assert told.memory.first_running == NOW


def test_a_running_vm_that_never_passed_its_check_is_still_pending() -> None:
    observation = seen(checked(), [vm("a")], remembered={}, probes=probes(a=UNHEALTHY))
    assert one(observation).status is VmStatus.PENDING


def test_the_first_pass_makes_a_newborn_ready_at_once() -> None:
    observation = seen(checked(), [vm("a")], remembered={}, probes=probes(a=HEALTHY))
    assert one(observation).status is VmStatus.RUNNING
    assert one(observation).is_ready


def test_failures_inside_the_startup_grace_mean_nothing() -> None:
    assert after(NEWBORN, UNHEALTHY, every=1).failures == 0


def test_failures_after_the_startup_grace_count_for_one_that_never_served() -> None:
    old = replace(NEWBORN, first_running=NOW - seconds(200))
    assert after(old, UNHEALTHY).failures == 1


def test_a_longer_grace_spares_what_was_condemned_without_it() -> None:
    """Somebody lengthens it because services that start slowly are being destroyed."""
    slow = replace(NEWBORN, failures=3, failing_since=NOW - seconds(60), is_unhealthy=True)
    patient = checked(1, startup_grace=seconds(600))
    found = one(seen(patient, [vm("a")], remembered={VmId("a"): slow}, probes=probes(a=UNHEALTHY)))
    assert found.status is VmStatus.PENDING
    assert not found.memory.is_unhealthy


def test_one_that_served_has_no_grace_any_more() -> None:
    young = replace(NEWBORN, was_healthy=True)
    assert after(young, UNHEALTHY).failures == 1


def test_without_the_grace_a_booting_service_would_be_condemned() -> None:
    impatient = checked(startup_grace=seconds(0))
    memory = NEWBORN
    for second in (0, 20, 40):
        memory = health.remember_probe(memory, UNHEALTHY, impatient, NOW + seconds(second))
    assert memory.is_unhealthy
    assert not after(NEWBORN, UNHEALTHY, UNHEALTHY, UNHEALTHY, every=5).is_unhealthy


def test_a_run_of_failures_over_the_minimum_time_condemns() -> None:
    assert after(SERVING, UNHEALTHY, UNHEALTHY, UNHEALTHY).is_unhealthy


def test_too_short_a_run_condemns_nobody() -> None:
    assert not after(SERVING, UNHEALTHY, UNHEALTHY, every=60).is_unhealthy


def test_a_quick_run_of_failures_condemns_nobody_before_the_minimum_time() -> None:
    assert not after(SERVING, UNHEALTHY, UNHEALTHY, UNHEALTHY, every=1).is_unhealthy


def test_unknown_neither_advances_nor_clears_a_run() -> None:
    assert after(FAILING, UNKNOWN) == FAILING
    assert after(SERVING, UNKNOWN, UNKNOWN, UNKNOWN) == SERVING


def test_silence_is_as_good_as_unknown() -> None:
    observation = seen(checked(), [vm("a")], remembered={VmId("a"): FAILING}, probes={})
    assert one(observation).memory == FAILING


def test_one_pass_does_not_end_a_run_and_two_do() -> None:
    once = after(CONDEMNED, HEALTHY)
    assert once.is_unhealthy
    twice = after(CONDEMNED, HEALTHY, HEALTHY)
    assert not twice.is_unhealthy
    assert twice.failures == 0
    assert twice.failing_since is None


def test_a_failure_between_begins_the_passes_anew() -> None:
    assert after(CONDEMNED, HEALTHY, UNHEALTHY, HEALTHY).is_unhealthy


def test_one_that_flaps_is_condemned_all_the_same() -> None:
    flapping = after(SERVING, UNHEALTHY, UNHEALTHY, HEALTHY, UNHEALTHY)
    assert flapping.is_unhealthy


def test_a_condemned_vm_tells_since_when_and_why() -> None:
    observation = seen(
        checked(), [vm("a")], remembered={VmId("a"): CONDEMNED}, probes=probes(a=UNHEALTHY)
    )
    told = one(observation)
    assert told.status is VmStatus.UNHEALTHY
    assert "connection refused" in told.reason
    assert "failing since 2030-01-01 11:55:00 UTC" in told.reason


def test_a_check_that_was_removed_condemns_nobody_any_more() -> None:
    told = one(seen(spec(), [vm("a")], remembered={VmId("a"): CONDEMNED}))
    assert told.status is VmStatus.RUNNING
    assert not told.memory.is_unhealthy


def test_a_near_shutdown_and_one_that_is_over_are_told_apart() -> None:
    near = vm("a", shutdown_at=NOW + seconds(300))
    past = vm("b", shutdown_at=NOW - seconds(1))
    far = vm("c", shutdown_at=NOW + seconds(3600))
    told = health.judge_all(seen(spec(), [near, past, far]))
    assert [each.status for each in told] == [
        VmStatus.NEARBY_SHUTDOWN,
        VmStatus.AFTER_TIME_SHUTDOWN,
        VmStatus.RUNNING,
    ]


def test_a_life_shorter_than_the_notice_is_not_over_at_birth() -> None:
    newborn = vm("a", created=NOW, shutdown_at=NOW + seconds(300))
    assert one(seen(spec(), [newborn])).status is VmStatus.RUNNING


def test_a_shutdown_comes_whatever_the_check_says() -> None:
    observation = seen(
        checked(observe_only=True),
        [vm("a", shutdown_at=NOW + seconds(300))],
        remembered={VmId("a"): CONDEMNED},
        probes=probes(a=UNHEALTHY),
    )
    assert one(observation).status is VmStatus.NEARBY_SHUTDOWN


def test_what_we_sent_away_is_leaving_though_the_cloud_says_that_it_runs() -> None:
    sent_away = replace(SERVING, terminating_since=NOW - seconds(10))
    told = one(seen(spec(), [vm("a")], remembered={VmId("a"): sent_away}))
    assert told.status is VmStatus.DELETING


def test_a_termination_without_an_answer_makes_nobody_leave() -> None:
    in_doubt = replace(SERVING, terminating_since=NOW, terminate_failed_at=NOW)
    told = one(seen(spec(), [vm("a")], remembered={VmId("a"): in_doubt}))
    assert told.status is VmStatus.RUNNING


def test_a_vm_is_overdue_when_it_boots_for_too_long() -> None:
    late = VmMemory(first_seen=NOW - seconds(601))
    booting = judged("a", VmStatus.PENDING, state=VmState.PENDING, memory=late)
    policy = spec().policy
    assert health.is_overdue(booting, policy, NOW)
    assert not health.is_overdue(booting, policy, NOW - seconds(2))


def test_a_vm_that_runs_and_waits_for_its_check_is_not_overdue() -> None:
    late = VmMemory(first_seen=LONG_AGO, first_running=LONG_AGO)
    assert not health.is_overdue(judged("a", VmStatus.PENDING, memory=late), spec().policy, NOW)
