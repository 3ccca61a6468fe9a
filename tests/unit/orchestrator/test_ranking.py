from __future__ import annotations

from dataclasses import replace

from orchestrator.model import Judged, VmState, VmStatus
from orchestrator.ranking import leaving_order
from tests.support.given import CONDEMNED, LONG_AGO, NOW, SERVING, judged, seconds


def order(*candidates: Judged, oldest_first: bool = False) -> list[str]:
    return [each.vm.vm_id for each in leaving_order(candidates, oldest_first=oldest_first)]


def test_the_gravest_leave_first() -> None:
    assert order(
        judged("serves"),
        judged("ends-soon", VmStatus.NEARBY_SHUTDOWN),
        judged("sick", VmStatus.UNHEALTHY, memory=CONDEMNED),
        judged("boots", VmStatus.PENDING, state=VmState.PENDING),
        judged("is-over", VmStatus.AFTER_TIME_SHUTDOWN),
    ) == ["is-over", "boots", "sick", "ends-soon", "serves"]


def test_what_is_a_persons_or_unknown_is_not_on_the_list() -> None:
    assert order(
        judged("stopped", VmStatus.STOPPED, state=VmState.STOPPED),
        judged("moved", VmStatus.UNKNOWN, state=VmState.TRANSITIONING),
        judged("protected", protected=True),
        judged("free"),
    ) == ["free"]


def test_the_youngest_leaves_first_and_the_oldest_where_it_is_declared_so() -> None:
    young, old = judged("young", created=NOW), judged("old", created=LONG_AGO)
    assert order(old, young) == ["young", "old"]
    assert order(young, old, oldest_first=True) == ["old", "young"]


def test_equals_leave_in_the_order_of_their_ids() -> None:
    assert order(judged("b"), judged("a"), judged("c")) == ["a", "b", "c"]


def test_one_that_never_served_leaves_before_one_that_did() -> None:
    never = replace(CONDEMNED, was_healthy=False)
    sick = judged("served", VmStatus.UNHEALTHY, memory=CONDEMNED, created=NOW)
    assert order(sick, judged("never", VmStatus.UNHEALTHY, memory=never)) == ["never", "served"]


def test_one_that_fails_at_present_leaves_before_a_younger_one_that_passes() -> None:
    failing = replace(SERVING, failures=1, failing_since=NOW - seconds(1))
    assert order(judged("young", created=NOW), judged("failing", memory=failing)) == [
        "failing",
        "young",
    ]
