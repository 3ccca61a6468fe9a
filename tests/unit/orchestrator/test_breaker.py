from __future__ import annotations

from dataclasses import replace

from orchestrator import breaker
from orchestrator.decide import decide
from orchestrator.model import Fleet, Judged, Policy, Reason, VmId, VmState, VmStatus
from tests.support.given import (
    CONDEMNED,
    NOW,
    SERVING,
    UNHEALTHY,
    checked,
    judged,
    memories,
    probes,
    seconds,
    seen,
    vms,
)

FAILING = replace(SERVING, failures=1, failing_since=NOW, passes=0)


def group(failing: int, passing: int) -> list[Judged]:
    return [judged(f"bad-{n}", memory=FAILING) for n in range(failing)] + [
        judged(f"good-{n}") for n in range(passing)
    ]


def test_it_is_closed_while_few_fail() -> None:
    assert not breaker.why_open(group(2, 1), Policy(), Fleet())
    assert not breaker.why_open(group(3, 7), Policy(), Fleet())


def test_it_opens_when_many_of_a_preset_fail_and_says_how_many() -> None:
    assert "3 of 8" in breaker.why_open(group(3, 5), Policy(), Fleet())


def test_failures_that_condemn_nobody_yet_count_already() -> None:
    assert breaker.why_open(group(3, 0), Policy(), Fleet())


def test_what_we_sent_away_counts_neither_as_failing_nor_as_running() -> None:
    relics = [judged(f"old-{n}", VmStatus.DELETING, memory=FAILING) for n in range(3)]
    assert not breaker.why_open([*relics, *group(0, 3)], Policy(), Fleet())


def test_what_does_not_run_does_not_count() -> None:
    stopped = [
        judged(f"s-{n}", VmStatus.STOPPED, state=VmState.STOPPED, memory=FAILING) for n in range(3)
    ]
    assert not breaker.why_open(stopped, Policy(), Fleet())


def test_it_opens_for_a_prober_that_condemns_a_fifth_of_all_it_sees() -> None:
    assert breaker.why_open([], Policy(), Fleet(failing=5, probed=25))
    assert not breaker.why_open([], Policy(), Fleet(failing=5, probed=26))
    assert not breaker.why_open([], Policy(), Fleet(failing=4, probed=4))


def test_nothing_is_destroyed_or_replaced_for_health_while_it_is_open() -> None:
    plan = decide(
        seen(
            checked(3),
            vms("abcd"),
            remembered=memories("abc", CONDEMNED) | memories("d"),
            probes=probes(a=UNHEALTHY, b=UNHEALTHY, c=UNHEALTHY),
        )
    )
    assert not plan.steps
    assert "BREAKER_OPEN" in {each.code for each in plan.refusals}
    assert plan.memory.breaker_since == NOW


def test_without_the_breaker_condemned_vms_would_be_destroyed() -> None:
    plan = decide(
        seen(
            checked(3, breaker_count=99),
            vms("abcd"),
            remembered=memories("abc", CONDEMNED) | memories("d"),
            probes=probes(a=UNHEALTHY, b=UNHEALTHY, c=UNHEALTHY),
        )
    )
    assert [step.reason for step in plan.terminations] == [Reason.UNHEALTHY]


def test_the_whole_fleet_failing_holds_back_a_preset_that_has_one_bad_vm() -> None:
    plan = decide(
        seen(
            checked(3),
            vms("abcd"),
            remembered=memories("a", CONDEMNED) | memories("bcd"),
            probes=probes(a=UNHEALTHY),
            fleet=Fleet(failing=9, probed=20),
        )
    )
    assert not plan.terminations


def test_it_stays_open_since_it_opened() -> None:
    observation = seen(
        checked(3),
        vms("abc"),
        remembered=memories("abc", CONDEMNED),
        probes=probes(a=UNHEALTHY, b=UNHEALTHY, c=UNHEALTHY),
    )
    opened = NOW - seconds(90)
    observation = replace(observation, memory=replace(observation.memory, breaker_since=opened))
    assert decide(observation).memory.breaker_since == opened


def test_on_thaw_every_timer_starts_anew_and_no_old_verdict_is_carried_out() -> None:
    observation = seen(
        checked(3),
        vms("abcd"),
        remembered=memories("ab", CONDEMNED) | memories("cd"),
        probes=probes(a=UNHEALTHY, b=UNHEALTHY),
    )
    frozen = replace(
        observation, memory=replace(observation.memory, breaker_since=NOW - seconds(90))
    )
    plan = decide(frozen)
    assert plan.memory.breaker_since is None
    assert plan.memory.vms[VmId("a")].failures == 1
    assert plan.memory.vms[VmId("a")].failing_since == NOW
    assert {each.status for each in plan.judged} == {VmStatus.RUNNING}
    assert Reason.UNHEALTHY not in {step.reason for step in plan.terminations}
    assert Reason.UNHEALTHY in {step.reason for step in decide(observation).terminations}


def test_a_surge_vm_is_not_taken_for_surplus_while_it_is_open() -> None:
    """Else a blind prober would ask for replacements and then have VMs destroyed as extra."""
    observation = seen(
        checked(2),
        vms("abc"),
        remembered=memories("ab", CONDEMNED) | memories("c", FAILING),
        probes=probes(a=UNHEALTHY, b=UNHEALTHY, c=UNHEALTHY),
    )
    plan = decide(observation)
    assert not plan.steps
    assert "SURPLUS_STAYS" in {each.code for each in plan.refusals}


def test_more_than_a_surge_above_the_count_still_leaves_while_it_is_open() -> None:
    observation = seen(
        checked(1),
        vms("abc"),
        remembered=memories("abc", CONDEMNED),
        probes=probes(a=UNHEALTHY, b=UNHEALTHY, c=UNHEALTHY),
    )
    assert [step.reason for step in decide(observation).terminations] == [Reason.SURPLUS]
