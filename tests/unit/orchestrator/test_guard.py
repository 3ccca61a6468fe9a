from __future__ import annotations

import pytest

from orchestrator import guard
from orchestrator.decide import decide
from orchestrator.guard import accept_count
from orchestrator.model import Memory, Wishes
from tests.support.given import seen, spec, vms


@pytest.mark.parametrize(
    ("before", "declared"),
    [(3, 3), (3, 8), (8, 3), (0, 5), (20, 30), (21, 10), (6, 1)],
)
def test_a_modest_change_is_obeyed_at_once(before: int, declared: int) -> None:
    assert accept_count(spec(declared), Memory(accepted_count=before), Wishes()) == (declared, ())


@pytest.mark.parametrize(("before", "declared"), [(10, 1000), (10, 0), (1, 0), (0, 6), (20, 9)])
def test_a_great_change_waits_for_a_person_and_says_so(before: int, declared: int) -> None:
    count, refusals = accept_count(spec(declared), Memory(accepted_count=before), Wishes())
    assert count == before
    assert [each.code for each in refusals] == ["COUNT_NEEDS_APPROVAL"]
    assert f"from {before} to {declared}" in refusals[0].message


def test_an_approved_count_is_obeyed() -> None:
    wishes = Wishes(approved_count=0)
    assert accept_count(spec(0), Memory(accepted_count=10), wishes) == (0, ())


def test_an_approval_is_for_one_count_alone() -> None:
    wishes = Wishes(approved_count=100)
    assert accept_count(spec(1000), Memory(accepted_count=10), wishes)[0] == 10


def test_a_new_preset_may_have_any_count() -> None:
    assert accept_count(spec(50), Memory(), Wishes()) == (50, ())


def test_without_the_guard_a_count_of_none_would_destroy_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emptied = seen(spec(0), vms("abc"), memory=Memory(accepted_count=3))
    assert not decide(emptied).steps
    monkeypatch.setattr(guard, "_is_modest", lambda *_: True)
    assert decide(emptied).terminations


def test_a_lost_store_cuts_no_group_down_and_lets_a_growing_one_grow() -> None:
    assert not decide(seen(spec(0), vms("abc"), memory=Memory())).steps
    assert len(decide(seen(spec(50), vms("abc"), memory=Memory())).creates) == 47


def test_the_accepted_count_is_remembered_and_not_the_declared_one() -> None:
    plan = decide(seen(spec(1000), vms("abc"), memory=Memory(accepted_count=3)))
    assert plan.memory.accepted_count == 3


@pytest.mark.parametrize(("alive", "count"), [(10, 10), (7, 10), (4, 0)])
def test_a_count_that_goes_up_again_is_measured_against_who_is_still_there(
    alive: int, count: int
) -> None:
    assert accept_count(spec(10), Memory(accepted_count=0), Wishes(), alive=alive)[0] == count


def test_vms_that_are_too_many_do_not_let_a_count_grow_at_once() -> None:
    assert accept_count(spec(1000), Memory(accepted_count=10), Wishes(), alive=15)[0] == 10
