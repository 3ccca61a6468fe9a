"""The check itself: it takes what can be, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from runtime_service.domain import Acquired, FencingToken, StaleToken, VersionConflict, Written
from tests.linearizability.calls import (
    LOST,
    Answer,
    Ask,
    Call,
    Close,
    Expire,
    Get,
    HeldBy,
    Lifetime,
    Look,
    Looked,
    Put,
    Refresh,
    Seen,
    TryLock,
    Unlock,
    by_name,
)
from tests.linearizability.check import violation
from tests.linearizability.model import Model, Name
from tests.linearizability.story import told


def call(sent: int, answered: int | None, ask: Ask, answer: Answer | None = None) -> Call:
    return Call(
        client=getattr(ask, "session", "reader"),
        ask=ask,
        answer=answer,
        sent=sent,
        answered=answered,
    )


def got(token: int) -> Acquired:
    return Acquired(FencingToken(token))


def put(session: str, token: int, expected: int, value: str) -> Put:
    return Put(session, token, expected, value)


LOCKED = call(0, 1, TryLock("x"), got(1))
WRITTEN = call(2, 3, put("x", 1, 0, "one"), Written(1))
BEGUN = (LOCKED, WRITTEN)
GIVEN_BACK = call(4, 5, Unlock("x", 1), True)

TRUE: dict[str, Iterable[Call]] = {
    "one after the other": [
        *BEGUN,
        call(4, 5, Get(), Seen("one", 1, 1)),
        call(6, 7, put("x", 1, 1, "two"), Written(2)),
        call(8, 9, put("x", 1, 1, "three"), VersionConflict(2)),
        call(10, 11, TryLock("y"), HeldBy("x")),
        call(12, 13, Look(), Looked(1, "x")),
        call(14, 15, Unlock("y", 1), False),
        call(16, 17, Unlock("x", 1), True),
        call(18, 19, put("x", 1, 2, "four"), StaleToken(1)),
        call(20, 21, TryLock("y", 6), got(7)),
        call(22, 23, TryLock("y", 6), got(7)),
        call(24, 25, TryLock("y", 7), got(8)),
        call(26, 27, Close("y"), True),
        call(28, 29, Close("y"), False),
        call(30, 31, TryLock("y"), LOST),
        call(32, 33, Refresh("y"), LOST),
        call(34, 35, put("y", 8, 2, "five"), LOST),
        call(36, 37, TryLock("x"), got(9)),
    ],
    "two reads see a write that is under way, or not": [
        *BEGUN,
        call(4, 20, put("x", 1, 1, "two"), Written(2)),
        call(5, 9, Get(), Seen("one", 1, 1)),
        call(6, 8, Get(), Seen("two", 2, 1)),
    ],
    "the first token is any": [call(0, 1, TryLock("x", 3), got(1000))],
    "the winner of two is told last": [
        call(0, 9, TryLock("x"), got(1)),
        call(1, 2, TryLock("y"), HeldBy("x")),
    ],
    "an unanswered write took effect much later": [
        *BEGUN,
        call(4, None, put("x", 1, 1, "two")),
        call(5, 6, Get(), Seen("one", 1, 1)),
        call(50, 51, Get(), Seen("two", 2, 1)),
    ],
    "an unanswered write never took effect": [
        *BEGUN,
        call(4, None, put("x", 1, 1, "two")),
        call(5, 6, put("x", 1, 1, "three"), Written(2)),
        call(50, 51, Get(), Seen("three", 2, 1)),
    ],
    "an unanswered write that nobody saw is seen by the next version": [
        *BEGUN,
        call(4, None, put("x", 1, 1, "two")),
        call(5, 6, put("x", 1, 2, "three"), Written(3)),
    ],
    "an unanswered unlock, and an unanswered lock after it": [
        LOCKED,
        call(2, None, Unlock("x", 1)),
        call(3, None, TryLock("y")),
        call(4, 5, TryLock("z"), HeldBy("x")),
        call(6, 7, TryLock("z"), HeldBy("y")),
        call(8, 9, TryLock("y"), got(2)),
    ],
    "an unanswered close let another one in": [
        LOCKED,
        call(2, None, Close("x")),
        call(3, 4, Refresh("x"), True),
        call(5, 6, TryLock("y"), got(2)),
        call(7, 8, put("x", 1, 0, "late"), StaleToken(2)),
        call(9, 10, put("x", 1, 0, "later"), LOST),
    ],
    "an expired session can do nothing, and keeps its lock for the delay": [
        LOCKED,
        call(10, None, Expire("x", frees=False)),
        call(20, None, Expire("x", frees=True)),
        call(11, 12, put("x", 1, 0, "late"), LOST),
        call(13, 14, TryLock("y"), HeldBy("x")),
        call(15, 16, Close("x"), False),
        call(21, 22, TryLock("y"), got(2)),
    ],
    "a session that may have expired, and has not": [
        LOCKED,
        call(10, None, Expire("x", frees=False)),
        call(10, None, Expire("x", frees=True)),
        call(30, 31, put("x", 1, 0, "in time"), Written(1)),
    ],
    "one of several locks was got before the session ended": [
        LOCKED,
        GIVEN_BACK,
        call(6, 9, TryLock("y", is_alone=False), LOST),
        call(7, 8, Close("y"), True),
        call(10, 11, TryLock("x"), got(3)),
    ],
}

FALSE: dict[str, Iterable[Call]] = {
    "a stale read": [
        *BEGUN,
        call(4, 5, put("x", 1, 1, "two"), Written(2)),
        call(6, 7, Get(), Seen("one", 1, 1)),
    ],
    "reads that go back, of a write that is under way": [
        *BEGUN,
        call(4, 20, put("x", 1, 1, "two"), Written(2)),
        call(5, 6, Get(), Seen("two", 2, 1)),
        call(7, 8, Get(), Seen("one", 1, 1)),
    ],
    "a lost write": [*BEGUN, call(4, 5, Get(), Seen())],
    "a lost write, written over": [
        *BEGUN,
        call(4, 5, put("x", 1, 0, "two"), Written(1)),
    ],
    "a value that nobody wrote": [*BEGUN, call(4, 5, Get(), Seen("other", 1, 1))],
    "two writes upon one version": [
        *BEGUN,
        call(4, 9, put("x", 1, 1, "two"), Written(2)),
        call(5, 8, put("x", 1, 1, "three"), Written(2)),
    ],
    "two holders": [LOCKED, call(2, 3, TryLock("y"), got(2))],
    "two holders at once": [
        call(0, 9, TryLock("x"), got(1)),
        call(1, 8, TryLock("y"), got(2)),
    ],
    "one token for two": [
        call(0, 9, TryLock("x"), got(1)),
        call(1, 8, TryLock("y"), got(1)),
    ],
    "a token that goes back": [
        call(0, 1, TryLock("x"), got(7)),
        call(2, 3, Unlock("x", 7), True),
        call(4, 5, TryLock("y"), got(6)),
    ],
    "a token that stands still": [LOCKED, GIVEN_BACK, call(6, 7, TryLock("y"), got(1))],
    "a token below the floor": [LOCKED, GIVEN_BACK, call(6, 7, TryLock("y", 9), got(2))],
    "another token for the one that holds it": [LOCKED, call(6, 7, TryLock("x"), got(2))],
    "a write under an old token": [
        *BEGUN,
        GIVEN_BACK,
        call(6, 7, TryLock("y"), got(2)),
        call(8, 9, put("x", 1, 1, "late"), Written(2)),
    ],
    "a write under a lock given back": [
        *BEGUN,
        GIVEN_BACK,
        call(8, 9, put("x", 1, 1, "late"), Written(2)),
    ],
    "a write under an old token of the same session": [
        *BEGUN,
        call(4, 5, TryLock("x", 1), got(2)),
        call(6, 7, put("x", 1, 1, "late"), Written(2)),
    ],
    "a refusal that tells a wrong newest token": [
        *BEGUN,
        call(4, 5, put("y", 1, 1, "late"), StaleToken(7)),
    ],
    "an unanswered lock that was got twice": [
        LOCKED,
        GIVEN_BACK,
        call(6, None, TryLock("y")),
        call(7, 8, Look(), Looked(2, "y")),
        call(9, 10, Unlock("y", 2), True),
        call(11, 12, Look(), Looked(3, "y")),
    ],
    "a lock that was got by a session that was told it had ended": [
        LOCKED,
        GIVEN_BACK,
        call(6, 9, TryLock("y"), LOST),
        call(7, 8, Close("y"), True),
        call(10, 11, TryLock("x"), got(3)),
    ],
    "a write of another under the right token": [
        *BEGUN,
        call(8, 9, put("y", 1, 1, "stolen"), Written(2)),
    ],
    "a write refused under the right token": [
        *BEGUN,
        call(8, 9, put("x", 1, 1, "mine"), StaleToken(1)),
    ],
    "an answer out of order": [
        LOCKED,
        call(2, 3, TryLock("y"), HeldBy("x")),
        call(4, 5, Unlock("x", 1), True),
        call(6, 7, TryLock("y"), HeldBy("x")),
    ],
    "a holder before it asked": [
        call(0, 1, TryLock("y"), HeldBy("x")),
        call(2, 3, TryLock("x"), got(1)),
    ],
    "an unanswered write before it was sent": [
        *BEGUN,
        call(4, 5, Get(), Seen("two", 2, 1)),
        call(6, None, put("x", 1, 1, "two")),
    ],
    "an unanswered write that is there and gone": [
        *BEGUN,
        call(4, None, put("x", 1, 1, "two")),
        call(5, 6, Get(), Seen("two", 2, 1)),
        call(7, 8, Get(), Seen("one", 1, 1)),
    ],
    "an unanswered write that took effect twice": [
        *BEGUN,
        call(4, None, put("x", 1, 1, "two")),
        call(5, 6, Get(), Seen("two", 2, 1)),
        call(7, 8, put("x", 1, 3, "three"), Written(4)),
    ],
    "a session that lives on after its end": [
        LOCKED,
        call(2, 3, Close("x"), True),
        call(4, 5, Refresh("x"), True),
    ],
    "a write of a session that has ended": [
        LOCKED,
        call(2, 3, Close("x"), True),
        call(4, 5, put("x", 1, 0, "late"), Written(1)),
    ],
    "a session lost for no reason": [LOCKED, call(2, 3, put("x", 1, 0, "one"), LOST)],
    "an expired session that comes back": [
        LOCKED,
        call(10, None, Expire("x", frees=False)),
        call(11, 12, Refresh("x"), LOST),
        call(13, 14, put("x", 1, 0, "late"), Written(1)),
    ],
    "a session that expired too early": [
        LOCKED,
        call(10, None, Expire("x", frees=False)),
        call(8, 9, Refresh("x"), LOST),
    ],
    "a lock that was free before its delay was over": [
        LOCKED,
        call(10, None, Expire("x", frees=False)),
        call(20, None, Expire("x", frees=True)),
        call(15, 16, TryLock("y"), got(2)),
    ],
    "one of several locks that was got twice": [
        LOCKED,
        GIVEN_BACK,
        call(6, 9, TryLock("y", is_alone=False), LOST),
        call(7, 8, Close("y"), True),
        call(10, 11, TryLock("x"), got(4)),
    ],
}


@pytest.mark.parametrize("calls", TRUE.values(), ids=TRUE)
def test_what_can_be_is_taken(calls: Iterable[Call]) -> None:
    assert violation(in_order_of_sending(calls)) is None


@pytest.mark.parametrize("calls", FALSE.values(), ids=FALSE)
def test_what_cannot_be_is_found(calls: Iterable[Call]) -> None:
    found = violation(in_order_of_sending(calls))
    assert found
    assert found.is_proven


def in_order_of_sending(calls: Iterable[Call]) -> list[Call]:
    return sorted(calls, key=lambda each: each.sent)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happened_one_by_one_is_found_again_among_overlapping_calls(seed: int) -> None:
    assert violation(happened(Random(seed), 300)) is None


@pytest.mark.parametrize("seed", range(20))
def test_one_answer_that_is_another_is_found_among_overlapping_calls(seed: int) -> None:
    chance = Random(seed)
    calls = happened(chance, 300)
    reads = [n for n, each in enumerate(calls) if isinstance(each.answer, Seen)]
    spoilt = chance.choice([n for n in reads if calls[n].answer != Seen()])
    read = calls[spoilt]
    assert isinstance(read.answer, Seen)
    wrong = Seen(read.answer.value, read.answer.version + 50, read.answer.token)
    calls[spoilt] = call(read.sent, read.answered, read.ask, wrong)
    assert violation(calls)


def happened(chance: Random, number: int) -> list[Call]:
    """Calls that took effect one by one, each at some moment while it was under way; some of them
    were never answered, and some of those never happened.
    """
    name, calls = Name(token=1), []
    for moment in range(0, number * 10, 10):
        session = chance.choice("xyz")
        asks: list[Ask] = [
            Get(),
            Look(),
            TryLock(session),
            Unlock(session, name.token),
            put(session, name.token, name.state.version, f"v{moment}"),
        ]
        ask = chance.choice(asks)
        sent, answered = moment - chance.randint(0, 30), moment + chance.randint(1, 30)
        if chance.random() < 0.05:
            unanswered = call(sent, None, ask)
            [after] = Model([]).after(name, unanswered) or [name]
            name = after if chance.random() < 0.5 else name
            calls.append(unanswered)
        else:
            answer, name = the_answer(name, ask)
            calls.append(call(sent, answered, ask, answer))
    first = call(-100, -99, TryLock("w"), got(1))
    return [first, call(-90, -89, Unlock("w", 1), True), *in_order_of_sending(calls)]


def the_answer(name: Name, ask: Ask) -> tuple[Answer, Name]:
    newest = FencingToken(name.token + 1)
    possible: list[Answer] = [
        name.state,
        Looked(name.token, name.holder),
        HeldBy(name.holder or ""),
        Acquired(newest),
        got(name.token),
        Written(name.state.version + 1),
        StaleToken(name.token),
        True,
        False,
    ]
    for answer in possible:
        for after in Model([]).after(name, call(0, 1, ask, answer)):
            return answer, after
    raise AssertionError(ask)


def test_many_calls_that_nobody_answered_do_not_drown_the_search() -> None:
    calls = list(happened(Random(1), 1500))
    nobody_knows = [
        call(n * 20, None, ask)
        for n in range(300)
        for ask in (TryLock("xyz"[n % 3]), Close(f"s{n}"), put("x", n, n, f"never {n}"))
    ]
    assert violation(in_order_of_sending([*calls, *nobody_knows]), most_places=50_000) is None


def test_a_search_that_gives_up_says_so_and_is_no_proof() -> None:
    found = violation(happened(Random(1), 300), most_places=10)
    assert found
    assert not found.is_proven


def test_the_end_of_a_session_concerns_every_name_it_asked_for() -> None:
    named = [("a", LOCKED), ("b", LOCKED), ("c", call(0, 1, TryLock("y"), got(1)))]
    closed = call(2, 3, Close("x"), True)
    lifetime = Lifetime(session="x", expires=10, frees=20)
    calls = by_name(named, [closed], [lifetime])
    assert [type(each.ask) for each in calls["a"]] == [TryLock, Close, Expire, Expire]
    assert calls["a"] == calls["b"]
    assert [each.session for each in calls["c"]] == ["y"]


def test_a_counter_example_is_told_with_times_states_and_no_more_than_is_needed() -> None:
    reads = [call(n, n + 1, Get(), Seen("one", 1, 1)) for n in range(10, 400, 2)]
    late = call(500, 501, put("x", 1, 0, "lost"), Written(1))
    calls = [*BEGUN, *reads, late, call(600, 601, Get(), Seen("one", 1, 1))]
    found = violation(calls)
    assert found
    story = told("preset/a", calls, found, seed=7)
    assert "preset/a, seed 7: no order explains what x was told at the end" in story
    assert len(story.splitlines()) < 10
    assert "value='lost') → Written(version=1)" in story
    assert "token 1, holder x, Seen(value='one', version=1, token=1)" in story
