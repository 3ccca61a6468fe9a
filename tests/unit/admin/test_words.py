"""Values as words: what people read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from admin import words
from vmshepherd.orchestrator.v1.view_pb2 import VmStatus
from vmshepherd_kit import stamps

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0s"),
        (-5, "0s"),
        (0.044, "44ms"),
        (1.44, "1.4s"),
        (5, "5s"),
        (59.6, "1m"),
        (125, "2m 5s"),
        (3600, "1h"),
        (90061, "1d 1h"),
    ],
)
def test_a_length_of_time_is_told_by_its_two_greatest_units(seconds: float, told: str) -> None:
    assert words.span(timedelta(seconds=seconds)) == told


def test_a_status_is_told_in_lower_case_and_without_its_prefix() -> None:
    known = VmStatus.VM_STATUS_AFTER_TIME_SHUTDOWN
    assert words.enum_word(VmStatus, known, "VM_STATUS_") == "after time shutdown"


def test_a_status_of_a_newer_api_is_told_by_its_number() -> None:
    assert words.enum_word(VmStatus, 99, "VM_STATUS_") == "? (99)"


def test_what_was_not_told_is_a_dash() -> None:
    assert words.enum_word(VmStatus, 0, "VM_STATUS_") == "-"
    assert words.ago(Timestamp(), NOW) == "-"
    assert words.counts({}) == "-"


def test_a_time_in_the_future_of_a_slow_clock_is_now() -> None:
    assert words.ago(stamps.to_timestamp(NOW + timedelta(seconds=3)), NOW) == "0s"


def test_statuses_are_counted_in_words() -> None:
    assert words.counts({"UNHEALTHY": 2, "NEARBY_SHUTDOWN": 1}) == "1 nearby shutdown, 2 unhealthy"


def test_control_characters_never_reach_a_terminal() -> None:
    assert words.clean("a\x1b[31mb\r\nc\x07") == "a [31mb  c"
