from __future__ import annotations

from datetime import timedelta

import pytest

from iaas_service.deadlines import Deadline, Pace
from iaas_service.domain import Deed
from vmshepherd_kit.errors import Refused
from vmshepherd_kit.testing import FakeClock

GRANTED = timedelta(seconds=14)
NOW = timedelta(hours=1)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def paced(*times: float, deed: Deed | None = None) -> Pace:
    pace = Pace()
    for each in times:
        pace.took(deed, seconds(each), now=NOW)
    return pace


def needed(pace: Pace, granted: timedelta = GRANTED, *, later: float = 0) -> timedelta:
    return pace.needed(None, granted, now=NOW + seconds(later))


async def test_below_what_is_needed_nothing_is_begun_and_it_says_how_much_that_is() -> None:
    clock = FakeClock()
    deadline = Deadline(clock, 14)
    await clock.advance(seconds(10))
    deadline.require(seconds(4))
    with pytest.raises(
        Refused, match=r"4\.000 s are left .* nothing is begun below 4\.5 s"
    ) as told:
        deadline.require(seconds(4.5))
    assert told.value.reason == "DEADLINE_TOO_SHORT"


def test_of_a_cloud_that_is_not_known_yet_a_second_is_asked() -> None:
    assert needed(Pace()) == seconds(1)


def test_a_quick_cloud_needs_a_second_all_the_same() -> None:
    assert needed(paced(0.1, 0.1)) == seconds(1)


def test_a_slow_cloud_needs_half_as_much_again_as_it_took_of_late() -> None:
    assert needed(paced(4)) == seconds(6)
    assert needed(paced(4, 2)) == seconds(5.25)


def test_each_deed_has_a_pace_of_its_own() -> None:
    assert needed(paced(4, deed=Deed.TERMINATE)) == seconds(1)


def test_however_slow_it_was_half_of_the_time_is_enough_to_try() -> None:
    assert needed(paced(60)) == seconds(7)


def test_a_call_that_was_cut_off_tells_only_that_it_takes_longer() -> None:
    pace = paced(4)
    pace.took(None, seconds(2), now=NOW, is_whole=False)
    assert needed(pace) == seconds(6)
    pace.took(None, seconds(6), now=NOW, is_whole=False)
    assert needed(pace, seconds(60)) == seconds(6.75)


def test_the_first_call_of_all_tells_something_although_it_was_cut_off() -> None:
    pace = Pace()
    pace.took(None, seconds(4), now=NOW, is_whole=False)
    assert needed(pace) == seconds(6)


def test_it_is_forgotten_step_by_step_when_the_cloud_is_quick_again() -> None:
    pace = paced(4)
    for _ in range(9):
        pace.took(None, seconds(0.2), now=NOW)
    assert needed(pace) == seconds(1)


def test_what_nobody_has_tried_for_a_minute_is_tried_again_however_slow_it_was() -> None:
    pace = paced(60)
    assert needed(pace, later=59) == seconds(7)
    assert needed(pace, later=60) == seconds(1)
    pace.took(None, seconds(4), now=NOW + seconds(60))
    assert needed(pace, later=61) == seconds(6)


def test_a_call_that_was_cut_off_is_a_try_all_the_same() -> None:
    pace = paced(60)
    pace.took(None, seconds(2), now=NOW + seconds(30), is_whole=False)
    assert needed(pace, later=80) == seconds(7)
