from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Deletion,
    Intent,
    IntentPhase,
    Memory,
    Placement,
    Policy,
    RequestId,
    Shortage,
    VmId,
    VmMemory,
)
from orchestrator.skew import not_after
from tests.support.given import NOW, SERVING, SPEC, UNHEALTHY, checked, probes, seconds, seen, vms

POLICY = Policy()
AHEAD = NOW + seconds(7200)


def test_no_time_is_later_than_now() -> None:
    ahead = VmMemory(
        first_seen=AHEAD,
        first_running=AHEAD,
        failing_since=AHEAD,
        terminating_since=AHEAD,
        terminate_failed_at=AHEAD,
        ready_since=AHEAD,
        repaired_at=AHEAD,
        kept_since=AHEAD,
    )
    intent = Intent(
        request_id=RequestId("r"), name="n", spec_hash=SPEC, phase=IntentPhase.SENT, sent_at=AHEAD
    )
    memory = not_after(
        Memory(
            vms={VmId("a"): ahead},
            intents=(intent,),
            breaker_since=AHEAD,
            suspended_since=AHEAD,
            deletions=(Deletion(at=AHEAD),),
        ),
        NOW,
        POLICY,
    )
    vm = memory.vms[VmId("a")]
    assert {
        vm.first_seen,
        vm.first_running,
        vm.failing_since,
        vm.terminating_since,
        vm.terminate_failed_at,
        vm.ready_since,
        vm.repaired_at,
        vm.kept_since,
        memory.intents[0].sent_at,
        memory.breaker_since,
        memory.suspended_since,
        memory.deletions[0].at,
    } == {NOW}


@pytest.mark.parametrize(
    "time", ["first_running", "failing_since", "ready_since", "repaired_at", "kept_since"]
)
def test_one_time_that_is_ahead_is_enough(time: str) -> None:
    changes: dict[str, Any] = {time: AHEAD}
    memory = Memory(vms={VmId("a"): replace(SERVING, **changes)})
    assert getattr(not_after(memory, NOW, POLICY).vms[VmId("a")], time) == NOW


def test_patience_and_shortages_end_in_due_time_by_the_presets_own_longest() -> None:
    policy = Policy(longest_backoff=seconds(60))
    short = Shortage(placement=Placement(), until=AHEAD, reason="NO_CAPACITY")
    memory = not_after(
        Memory(backoff=Backoff(failures=1, until=AHEAD), shortages=(short,)), NOW, policy
    )
    assert memory.backoff.until == memory.shortages[0].until == NOW + seconds(60)


def test_what_is_not_ahead_is_left_as_it_is() -> None:
    memory = Memory(vms={VmId("a"): SERVING}, backoff=Backoff(failures=1, until=NOW + seconds(9)))
    assert not_after(memory, NOW, POLICY) == memory


def test_patience_ends_in_due_time_after_the_clock_was_set_back() -> None:
    memory = Memory(backoff=Backoff(failures=1, until=AHEAD))
    until = not_after(memory, NOW, POLICY).backoff.until
    assert until is not None
    assert until - NOW <= seconds(600)


def test_a_run_of_failures_goes_on_after_the_clock_was_set_back() -> None:
    failing = replace(SERVING, failures=2, failing_since=AHEAD, passes=0)
    observation = seen(
        checked(1), vms("a"), remembered={VmId("a"): failing}, probes=probes(a=UNHEALTHY)
    )
    first = decide(observation).memory
    later = replace(observation, now=NOW + seconds(31), memory=first)
    assert decide(later).memory.vms[VmId("a")].is_unhealthy
