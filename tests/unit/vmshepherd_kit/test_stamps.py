"""datetime ⇄ Timestamp, timedelta ⇄ Duration."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from vmshepherd_kit import stamps
from vmshepherd_kit.errors import BadRequest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)).filter(lambda moment: moment != EPOCH))
def test_a_moment_comes_back_as_it_was(moment: datetime) -> None:
    stamp = stamps.to_timestamp(moment)
    assert 0 <= stamp.nanos < 10**9
    assert stamps.from_timestamp(stamp) == moment


@given(st.timedeltas(min_value=timedelta(days=-3650000), max_value=timedelta(days=3650000)))
def test_a_length_of_time_comes_back_as_it_was(length: timedelta) -> None:
    message = stamps.to_duration(length)
    assert message.seconds * message.nanos >= 0, "protobuf wants one sign for both parts"
    assert stamps.from_duration(message) == length


def test_a_moment_that_was_never_set_is_none() -> None:
    assert stamps.from_timestamp(Timestamp()) is None
    assert stamps.from_timestamp(None) is None


def test_another_time_zone_is_the_same_moment() -> None:
    here = datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert stamps.from_timestamp(stamps.to_timestamp(here)) == datetime(2030, 1, 1, tzinfo=UTC)


def test_a_moment_without_a_time_zone_is_a_bug_of_ours() -> None:
    with pytest.raises(ValueError, match="time zone"):
        stamps.to_timestamp(datetime(2030, 1, 1))  # noqa: DTZ001  the point of the test


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253402300800])
def test_a_moment_outside_the_calendar_is_the_callers_fault(seconds: int) -> None:
    with pytest.raises(BadRequest):
        stamps.from_timestamp(Timestamp(seconds=seconds))


def test_a_length_beyond_all_time_is_the_callers_fault() -> None:
    with pytest.raises(BadRequest):
        stamps.from_duration(Duration(seconds=2**62))
