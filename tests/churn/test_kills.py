"""kill -9 upon SQLite: a short run of what `bench/locks.py --kills` does, and that it can fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bench.locks_kills import kills
from bench.locks_survival import Answered, Found, event_ids, unanswered, value_of, wrong
from runtime_service.domain import Event, FencingToken, Lock, State, StoredEvent

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def lock(name: str, token: int) -> Lock:
    return Lock(name=name, fencing_token=FencingToken(token), owner=None, age=timedelta(0))


def state(name: str, version: int, value: bytes | None = None) -> State:
    return State(
        name=name,
        value=value_of(name, version) if value is None else value,
        version=version,
        fencing_token=FencingToken(7),
        written=NOW,
    )


def events(batch: str, first: int) -> list[StoredEvent]:
    return [
        StoredEvent(first + number, Event(event_id=each, time=NOW))
        for number, each in enumerate(event_ids(batch))
    ]


ANSWERED = Answered(
    tokens={"a": 7}, versions={"a": 3}, events=dict(zip(event_ids("one"), range(1, 6), strict=True))
)
WHOLE = Found(locks=[lock("a", 7)], states=[state("a", 3)], events=events("one", 1), integrity="ok")


def test_what_was_answered_and_is_there_is_not_wrong() -> None:
    assert list(wrong(ANSWERED, WHOLE)) == []
    assert unanswered(ANSWERED, WHOLE) == 0


def test_what_is_there_and_was_not_answered_is_not_wrong_either() -> None:
    more = Found(
        locks=[lock("a", 8)],
        states=[state("a", 4)],
        events=[*WHOLE.events, *events("two", 6)],
        integrity="ok",
    )
    assert list(wrong(ANSWERED, more)) == []
    assert unanswered(ANSWERED, more) == 7


@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param(replace(WHOLE, locks=[lock("a", 6)]), "lost: token 7", id="token"),
        pytest.param(replace(WHOLE, locks=[]), "lost: token 7", id="lock"),
        pytest.param(replace(WHOLE, states=[state("a", 2)]), "lost: version 3", id="version"),
        pytest.param(replace(WHOLE, states=[]), "lost: version 3", id="state"),
        pytest.param(
            replace(WHOLE, states=[state("a", 3, value_of("a", 3)[:10_000])]),
            "half a state",
            id="half",
        ),
        pytest.param(
            replace(WHOLE, states=[state("a", 3, value_of("a", 2))]),
            "half a state",
            id="older value",
        ),
        pytest.param(replace(WHOLE, events=events("one", 2)), "lost: event", id="sequence"),
        pytest.param(
            replace(WHOLE, events=[*WHOLE.events, *events("two", 6)[:3]]),
            "half a batch: 3 events of two",
            id="batch",
        ),
        pytest.param(replace(WHOLE, integrity="row 3 missing"), "damaged: row 3", id="damage"),
    ],
)
def test_what_is_lost_or_half_there_is_told(found: Found, words: str) -> None:
    assert [sentence for sentence in wrong(ANSWERED, found) if words in sentence]


@pytest.mark.e2e
async def test_what_was_answered_survives_kills_in_the_middle_of_transactions() -> None:
    toll = await kills(30, seed="a short run")
    assert toll.wrong == []
    assert toll.kills == 30
    # Or the kills hit nothing but idle processes.
    assert toll.kills_in_mid_answer > 0
