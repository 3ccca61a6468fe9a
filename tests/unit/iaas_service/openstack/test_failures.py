from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from iaas_service.drivers.openstack import failures
from iaas_service.drivers.openstack.failures import Answer, Call
from vmshepherd_kit.errors import (
    BadRequest,
    Denied,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    ShepherdError,
    Throttled,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
READING = Call(whom="Nova of osk", what="GET /servers/detail", changes=False)
CREATE = Call(whom="Nova of osk", what="POST /servers", changes=True)


def answer(status: int, message: str = "", *, kind: str = "fault", **headers: str) -> Answer:
    body = json.dumps({kind: {"code": status, "message": message}}).encode() if message else b""
    told = {key.replace("_", "-"): value for key, value in headers.items()}
    return Answer(status=status, headers=told, body=body)


def error(call: Call, told: Answer) -> ShepherdError:
    with pytest.raises(ShepherdError) as raised:
        failures.content(call, told, NOW)
    return raised.value


def test_a_good_answer_is_its_json() -> None:
    assert failures.content(READING, Answer(status=200, body=b'{"servers": []}'), NOW) == {
        "servers": []
    }
    assert failures.content(CREATE, Answer(status=202), NOW) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthenticated),
        (403, Denied),
        (404, NotFound),
        (405, Unsupported),
        (406, Unsupported),
        (409, Unavailable),
        (410, NotFound),
        (413, Throttled),
        (422, BadRequest),
        (429, Throttled),
    ],
)
@pytest.mark.parametrize("call", [READING, CREATE], ids=["reading", "create"])
def test_a_refusal_proves_that_nothing_was_done(
    status: int, kind: type[ShepherdError], call: Call
) -> None:
    assert type(error(call, answer(status, "no"))) is kind


@pytest.mark.parametrize("status", [302, 500, 502, 503, 504])
def test_any_other_answer_to_a_create_proves_nothing(status: int) -> None:
    assert type(error(CREATE, answer(status, "oops"))) is OutcomeUnknown
    assert type(error(READING, answer(status, "oops"))) is Unavailable


def test_what_is_no_json_proves_nothing() -> None:
    page = Answer(status=200, body=b"<html>Please wait</html>")
    assert type(error(CREATE, page)) is OutcomeUnknown
    assert error(READING, page).reason == "CLOUD_FAILING"


def test_novas_own_words_are_in_the_error() -> None:
    words = "Quota exceeded for instances: Requested 1, but already used 3 of 3 instances"
    told = error(CREATE, answer(403, words, kind="forbidden"))
    assert isinstance(told, QuotaExceeded)
    assert words in told.message
    assert told.facts["said"] == words


@pytest.mark.parametrize(
    "body",
    [
        {"NeutronError": {"type": "OverQuota", "message": "Quota exceeded", "detail": ""}},
        {"error": {"code": 409, "message": "Quota exceeded", "title": "Conflict"}},
        {"errors": [{"status": 409, "detail": "Quota exceeded"}]},
    ],
)
def test_each_service_has_its_way_to_say_it(body: object) -> None:
    told = Answer(status=409, body=json.dumps(body).encode())
    assert isinstance(error(CREATE, told), QuotaExceeded)


def test_a_page_for_people_is_shortened_to_its_words() -> None:
    assert failures.said(b"<html><h1>Bad Gateway</h1>\n" + b"x" * 5000).startswith("Bad Gateway")
    assert len(failures.said(b"x" * 5000)) == 500


def test_user_data_that_nova_quotes_are_not_repeated() -> None:
    words = "Invalid input for field/attribute user_data. Value: aHVudGVyMg==. 'aHVu' is too long"
    told = error(CREATE, answer(400, words, kind="badRequest"))
    assert "user_data" in told.message
    assert "aHVu" not in f"{told.message}{told.facts}"


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("7", timedelta(seconds=7)),
        ("Mon, 23 Nov 2026 12:00:09 GMT", timedelta(seconds=9)),
        # Over already: a moment all the same.
        ("Mon, 23 Nov 2026 11:00:00 GMT", failures.REST),
    ],
)
def test_the_delay_that_is_asked_for_is_kept(text: str, wait: timedelta) -> None:
    assert error(READING, answer(429, "slow down", Retry_After=text)).retry_after == wait


def test_a_delay_that_is_none_is_a_short_one() -> None:
    assert error(READING, answer(429, "slow down", Retry_After="soon")).retry_after == failures.REST


def test_a_service_that_is_away_for_a_while_throttles_readings_alone() -> None:
    away = answer(503, "maintenance", Retry_After="30")
    assert isinstance(error(READING, away), Throttled)
    told = error(CREATE, away)
    assert isinstance(told, OutcomeUnknown)
    assert told.retry_after == timedelta(seconds=30)


@pytest.mark.parametrize(
    "words",
    [
        # To GET, to an action, and to DELETE, as Nova of Zed says it.
        "Instance 8d3c2a3e-0a0e-4a53-9d1b-7f0c2d6f5e11 could not be found.",
        "Instance could not be found",
    ],
)
def test_a_server_is_gone_when_nova_says_so(words: str) -> None:
    error = failures.refusal(READING, answer(404, words, kind="itemNotFound"), NOW)
    assert isinstance(error, NotFound)
    assert failures.gone(error, "vm-1") is error


@pytest.mark.parametrize("words", ["", "The resource could not be found.", "no such page"])
def test_a_404_of_somebody_else_proves_nothing_about_a_server(words: str) -> None:
    error = failures.refusal(READING, answer(404, words), NOW)
    assert isinstance(error, NotFound)
    meant = failures.gone(error, "vm-1")
    assert isinstance(meant, Unavailable)
    assert meant.reason == "CLOUD_FAILING"
    assert error.message in meant.message


def test_a_catalogue_without_nova_proves_nothing_about_a_server() -> None:
    error = NotFound("the catalogue has no compute service", reason="NO_SUCH_SERVICE")
    assert isinstance(failures.gone(error, "vm-1"), Unavailable)
