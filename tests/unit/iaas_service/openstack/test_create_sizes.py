"""What 413 means for a create: too large an order, or too many calls."""

from __future__ import annotations

from datetime import UTC, datetime

from iaas_service.drivers.openstack import failures
from iaas_service.drivers.openstack.create import understood
from iaas_service.drivers.openstack.failures import Answer, Call
from vmshepherd_kit.errors import BadRequest, ShepherdError, Throttled

CALL = Call(whom="Nova of osk", what="POST /servers", changes=True)
NOW = datetime(2030, 1, 1, tzinfo=UTC)
# As Nova of Zed answers, but for the markup.
TOO_LARGE = b"""413 Request Entity Too Large

Request is too large. Larger than max_request_body_size (114688).
"""


def meant(answer: Answer) -> ShepherdError:
    return understood(failures.refusal(CALL, answer, NOW))


def test_an_order_that_is_too_large_is_not_tried_until_it_is_another_one() -> None:
    error = meant(Answer(status=413, body=TOO_LARGE))
    assert isinstance(error, BadRequest)
    assert "max_request_body_size (114688)" in error.message
    assert "shorten user data or metadata" in error.message


def test_too_many_calls_are_told_by_the_same_status_and_waited_for() -> None:
    answer = Answer(status=413, headers={"Retry-After": "7"}, body=b"rate limiting")
    assert isinstance(meant(answer), Throttled)
