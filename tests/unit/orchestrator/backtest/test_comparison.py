from __future__ import annotations

from orchestrator.backtest.comparison import Comparison, verdict
from orchestrator.backtest.story import Destroyed, Story
from orchestrator.model import Reason, VmId


def story(*names: str, own: int = 0, at: float = 1) -> Story:
    """One that destroys these VMs of the timeline, and so many of its own making."""
    made = [f"new-{n}" for n in range(own)]
    return Story(
        destroyed=tuple(
            Destroyed(
                at=at,
                vm_id=VmId(name),
                reason=Reason.UNHEALTHY,
                evidence="",
                clause="",
                is_made=name in made,
            )
            for name in (*names, *made)
        )
    )


def against(proposed: Story, present: Story) -> Comparison:
    return Comparison(name="t", proposed=proposed, present=present)


def told(proposed: Story, present: Story) -> str:
    return verdict([against(proposed, present)])


def test_vms_that_only_the_proposed_policy_destroys_are_the_verdict() -> None:
    assert told(story("a", "b", "c"), story("a")) == (
        "the proposed policy would have destroyed 2 VMs that the present one spared"
    )
    assert told(story("a"), story()) == (
        "the proposed policy would have destroyed 1 VM that the present one spared"
    )


def test_what_it_spares_is_told_beside_what_it_destroys() -> None:
    assert told(story("a"), story("b", "c")) == (
        "the proposed policy would have destroyed 1 VM that the present one spared, "
        "and spared 2 VMs that the present one destroyed"
    )


def test_ids_of_vms_that_policies_made_themselves_are_not_compared() -> None:
    both = against(story(own=2), story(own=2))
    assert (both.condemned, both.spared, both.is_worse) == ((), (), False)


def test_more_of_its_own_vms_are_worse_and_fewer_are_not() -> None:
    assert told(story(own=3), story(own=1)) == (
        "the proposed policy would have destroyed 2 more of the VMs that it made itself"
    )
    assert against(story(own=3), story(own=1)).is_worse
    assert not against(story(own=1), story(own=3)).is_worse


def test_other_vms_in_equal_number_are_worse_all_the_same() -> None:
    assert against(story("a"), story("b")).is_worse


def test_the_same_vms_at_another_time_are_no_news() -> None:
    same = against(story("a", at=5), story("a", at=500))
    assert not same.is_worse
    assert verdict([same]) == (
        "the proposed policy would have destroyed the same VMs as the present one"
    )


def test_where_nobody_is_destroyed_it_is_said() -> None:
    assert told(story(), story()) == "neither policy would have destroyed a VM"


def test_several_timelines_come_to_one_verdict() -> None:
    several = [
        against(story("a"), story()),
        against(story("a"), story()),
        against(story(own=1), story(own=5)),
    ]
    assert verdict(several) == (
        "the proposed policy would have destroyed 2 VMs that the present one spared"
    )
