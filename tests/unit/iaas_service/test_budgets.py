"""Budgets: what is counted, for whom, and when it is forgotten."""

from __future__ import annotations

from datetime import timedelta

from iaas_service.budgets import Budget, Place, Window, longest
from vmshepherd_kit.errors import Throttled

MINUTE = timedelta(minutes=1)
NORTH = Place(provider="nova", zone="north", image="debian")
SOUTH = Place(provider="nova", zone="south", image="debian")


def budget(limit: int) -> Budget:
    return Budget(name="per_zone", limit=limit, share=lambda place: {"zone": place.zone})


def window(*times: int, place: Place = NORTH) -> Window:
    """Things that happened at these minutes of ten."""
    opened = Window(10 * MINUTE)
    for number, minute in enumerate(times):
        opened.add(number, place, minute * MINUTE)
    return opened


def refused(spent: Window, limit: int, minute: int, place: Place = NORTH) -> Throttled:
    refusal = budget(limit).refusal(spent, place, minute * MINUTE, deed="destroyed")
    assert refusal is not None
    return refusal


def test_a_thing_is_counted_from_its_first_time_and_once() -> None:
    opened = window(0)
    opened.add(0, NORTH, 5 * MINUTE)
    assert opened.times(5 * MINUTE, lambda _: True) == [0 * MINUTE]
    assert opened.has(0, 9 * MINUTE)
    assert not opened.has(0, 10 * MINUTE), "its first time is over"


def test_a_thing_that_comes_again_after_its_time_is_the_newest() -> None:
    opened = window(0, 1)
    opened.add(0, NORTH, 10 * MINUTE)
    assert opened.times(10 * MINUTE, lambda _: True) == [1 * MINUTE, 10 * MINUTE]


def test_a_refusal_names_the_budget_the_number_the_thing_and_the_time() -> None:
    refusal = refused(window(0, 3), 2, 4)
    assert refusal.message == (
        "2 VMs of zone 'north' were destroyed within 0:10:00, "
        "and 2 are allowed by iaas.limits.per_zone"
    )
    assert refusal.reason == "BUDGET_SPENT"
    assert refusal.facts == {"budget": "per_zone", "limit": "2", "zone": "north"}
    assert refusal.retry_after == 6 * MINUTE


def test_whoever_comes_back_in_time_passes() -> None:
    spent = window(0, 3)
    assert budget(2).refusal(spent, NORTH, 10 * MINUTE, deed="destroyed") is None


def test_what_was_forced_beyond_the_limit_must_be_forgotten_first() -> None:
    spent = window(0, 2, 3, 4)
    refusal = refused(spent, 2, 4)
    assert refusal.retry_after == 9 * MINUTE
    assert refused(spent, 2, 12).retry_after == 1 * MINUTE
    assert budget(2).refusal(spent, NORTH, 13 * MINUTE, deed="destroyed") is None


def test_another_place_is_not_concerned() -> None:
    assert budget(2).refusal(window(0, 3), SOUTH, 4 * MINUTE, deed="destroyed") is None


def test_a_place_of_which_nothing_is_told_is_a_place_too() -> None:
    nowhere = Place(provider="nova", zone="", image="")
    assert refused(window(0, place=nowhere), 1, 1, nowhere).facts["zone"] == ""


def test_of_several_refusals_the_one_that_lasts_longest_is_told() -> None:
    short, long = (Throttled("later", retry_after=n * MINUTE) for n in (1, 2))
    assert longest([None, short, long, None]) is long
    assert longest([None, None]) is None
