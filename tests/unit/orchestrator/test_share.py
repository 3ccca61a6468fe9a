from __future__ import annotations

from datetime import timedelta
from itertools import accumulate

from orchestrator.share import IN_TIME, LATE, LEAST, share

MOMENT = timedelta(milliseconds=1)


def test_one_that_is_late_hands_over_a_part_and_keeps_some() -> None:
    shares = list(
        accumulate(range(20), lambda former, _: share(former, LATE + MOMENT), initial=100)
    )
    assert shares[:3] == [100, 70, 49]
    assert shares[-1] == LEAST


def test_one_that_is_in_time_takes_it_back_slowly_and_no_more_than_all() -> None:
    assert share(49, IN_TIME - MOMENT) == 54
    assert share(98, timedelta(0)) == 100


def test_between_late_and_in_time_nothing_moves() -> None:
    assert share(70, LATE) == 70
    assert share(70, IN_TIME) == 70
