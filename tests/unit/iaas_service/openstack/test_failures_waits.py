"""Delays and statuses that are odd, and still mean something."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from iaas_service.drivers.openstack import failures
from iaas_service.drivers.openstack.failures import Answer, Call

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("9" * 40, timedelta(days=1)),
        # A date that does not say of which zone it is, is one of UTC.
        ("Mon, 23 Nov 2026 12:00:09 -0000", timedelta(seconds=9)),
        ("Mon, 23 Nov 2026 11:00:00 GMT", timedelta(0)),
        ("²", None),
        ("", None),
    ],
)
def test_a_delay_is_read_however_it_is_written(text: str, wait: timedelta | None) -> None:
    assert failures.retry_after({"retry-after": text}, NOW) == wait


def test_a_choice_of_versions_is_a_good_answer() -> None:
    call = Call(whom="Nova of osk", what="GET /", changes=False)
    assert failures.content(call, Answer(status=300, body=b'{"versions": []}'), NOW) == {
        "versions": []
    }
