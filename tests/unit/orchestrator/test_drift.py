from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator import drift
from orchestrator.decide import decide
from orchestrator.model import Memory, Replace, VmId, VmMemory
from orchestrator.recall import restarted
from tests.support.given import FORMER, NOW, SERVING, SPEC, judged, seen, spec, vm

MADE = replace(SERVING, first_image="web-1", first_flavor="small")


@pytest.mark.parametrize(
    ("declared", "made_of", "outdated"),
    [(SPEC, SPEC, False), (SPEC, FORMER, True), (SPEC, "", True), ("", FORMER, False)],
)
def test_a_vm_is_outdated_when_its_marker_tells_of_another_spec(
    declared: str, made_of: str, *, outdated: bool
) -> None:
    what = replace(spec(), spec_hash=declared)
    assert drift.is_outdated(vm("a", spec_hash=made_of), SERVING, what) is outdated


@pytest.mark.parametrize(
    ("image", "flavor", "outdated"),
    [
        ("web-1", "small", False),
        ("web-1", "big", True),
        ("web-2", "small", True),
        ("", "", False),
    ],
)
def test_or_when_the_cloud_reports_another_image_or_flavor_than_at_first(
    image: str, flavor: str, *, outdated: bool
) -> None:
    assert drift.is_outdated(vm("a", image=image, flavor=flavor), MADE, spec()) is outdated


def test_what_the_cloud_reports_is_never_compared_with_the_preset() -> None:
    """Clouds give things other names than people do."""
    what = replace(spec(1), images=("debian-12",), flavors=("small",))
    plan = decide(seen(what, [vm("a", image="3f9a", flavor="17")]))
    assert not plan.judged[0].is_outdated


def test_the_first_report_is_remembered_and_not_overwritten() -> None:
    first = decide(seen(spec(1), [vm("a", image="web-1", flavor="small")])).memory
    assert (first.vms[VmId("a")].first_image, first.vms[VmId("a")].first_flavor) == (
        "web-1",
        "small",
    )
    resized = vm("a", image="web-1", flavor="big")
    plan = decide(seen(spec(1), [resized], memory=first, remembered={}))
    assert plan.judged[0].is_outdated
    assert plan.memory.vms[VmId("a")].first_flavor == "small"


def test_what_was_not_reported_at_first_is_learnt_later() -> None:
    memory = drift.first_report(drift.first_report(SERVING, vm("a")), vm("a", image="web-1"))
    assert memory.first_image == "web-1"


def test_a_takeover_does_not_forget_what_was_reported_at_first() -> None:
    memory = restarted(Memory(vms={VmId("a"): MADE}), NOW).vms[VmId("a")]
    assert (memory.first_image, memory.first_flavor) == ("web-1", "small")


def test_the_evidence_tells_what_differs() -> None:
    by_hash = judged("a", spec_hash=FORMER)
    resized = judged("a", image="web-1", flavor="big", memory=MADE)
    assert drift.evidence(by_hash, spec()) == "made of spec spec-0, declared is spec-1"
    assert "flavor 'small', now has 'web-1' and 'big'" in drift.evidence(resized, spec())
    assert "unknown" in drift.evidence(judged("a", spec_hash=""), spec())


@pytest.mark.parametrize(
    ("how", "matters"),
    [(Replace.ROLLING, True), (Replace.ON_FAILURE, True), (Replace.NEVER, False)],
)
def test_it_makes_a_difference_unless_nothing_is_ever_replaced_for_it(
    how: Replace, *, matters: bool
) -> None:
    old = replace(judged("a"), is_outdated=True)
    assert drift.matters(old, spec(replace=how)) is matters
    assert not drift.matters(judged("a"), spec(replace=how))


def test_a_new_vm_is_what_is_declared() -> None:
    plan = decide(seen(spec(1), [vm("a")], remembered={VmId("a"): VmMemory(first_seen=NOW)}))
    assert not plan.judged[0].is_outdated
