from __future__ import annotations

from dataclasses import replace

from orchestrator.model import Judged, VmState, VmStatus
from orchestrator.ranking import leaving_order, spread
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


def test_one_that_has_not_proved_itself_leaves_before_an_older_one_that_has() -> None:
    fresh = replace(SERVING, was_proved=False)
    old, young = judged("old", created=LONG_AGO), judged("young", created=NOW, memory=fresh)
    assert order(old, young, oldest_first=True) == ["young", "old"]


def test_the_outdated_leave_first_among_equals_where_that_makes_a_difference() -> None:
    old, new = replace(judged("old"), is_outdated=True), judged("new", created=NOW)
    ranked = leaving_order([new, old], oldest_first=False, is_outdated_first=True)
    assert [each.vm.vm_id for each in ranked] == ["old", "new"]
    assert order(new, old) == ["new", "old"]


def spread_of(zones: str, *, is_outdated_first: bool = False, **outdated: bool) -> list[str]:
    """In which order VMs of these zones leave, when they would leave as they are listed."""
    group = [
        replace(judged(f"{zone}{place}", zone=zone), is_outdated=outdated.get(zone, False))
        for place, zone in enumerate(zones)
    ]
    spread_out = spread(group, group, is_outdated_first=is_outdated_first)
    return [each.vm.vm_id for each in spread_out]


def test_the_fullest_zone_loses_first_and_equals_leave_as_they_stand() -> None:
    assert spread_of("abbb") == ["b1", "b2", "a0", "b3"]
    assert spread_of("abc") == ["a0", "b1", "c2"]
    assert spread_of("abba") == ["a0", "b1", "b2", "a3"]
    assert spread_of("") == []


def test_a_grave_vm_leaves_before_a_healthy_one_of_a_fuller_zone() -> None:
    sick = judged("sick", VmStatus.UNHEALTHY, memory=CONDEMNED, zone="a")
    group = [sick, *(judged(f"b{number}", zone="b") for number in range(3))]
    assert spread(group, group)[0] is sick


def test_an_outdated_vm_leaves_before_the_fullest_zone_where_that_makes_a_difference() -> None:
    assert spread_of("abb", is_outdated_first=True, a=True)[0] == "a0"
    assert spread_of("abb", a=True)[0] == "b1"
