"""The judge of bench/locks.py finds what is planted, and nothing in a history without a fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.locks_judge import Findings, Grant, History, Sight, Write, judge, longest_pause


def grant(token: int, begin: float, end: float, *, client: int = 1, name: str = "a") -> Grant:
    session = f"{client} since {begin}"
    return Grant(name, client, session, token, asked=begin - 0.1, answered=begin, ended=end)


def write(token: int, sent: float, version: int | None, *, mark: str = "") -> Write:
    return Write("a", mark or f"w{token}.{sent}", token, sent, sent + 0.1, version)


def sight(version: int, token: int, sent: float, mark: str) -> Sight:
    return Sight("a", mark, token, version, sent, sent + 0.1)


def counts(found: Findings) -> tuple[int, int, int, int]:
    return (
        len(found.overlaps),
        len(found.token_regressions),
        len(found.stale_writes),
        len(found.state_regressions),
    )


GOOD = History(
    grants=[grant(5, 1, 2), grant(6, 2, 3, client=2), grant(9, 4, 5), grant(1, 4, 9, name="b")],
    writes=[write(5, 1.5, 1), write(6, 2.5, 2), write(5, 3.5, None), write(9, 4.5, 3)],
    sights=[sight(1, 5, 2.1, "w5.1.5"), sight(2, 6, 4.1, "w6.2.5"), sight(0, 0, 0.5, "")],
)


def test_a_history_without_a_fault_is_found_to_be_one() -> None:
    assert counts(judge(GOOD)) == (0, 0, 0, 0)


def test_two_clients_that_may_act_at_one_moment_are_an_overlap() -> None:
    history = History(grants=[grant(5, 1, 2.01), grant(6, 2, 3, client=2)])
    found = judge(history)
    assert counts(found) == (1, 0, 0, 0)
    assert "client 1 under 5" in found.overlaps[0]
    assert "client 2 under 6" in found.overlaps[0]


def test_a_long_right_overlaps_with_each_that_begins_within_it() -> None:
    history = History(grants=[grant(token, token, token + 0.5, client=token) for token in (2, 3)])
    history.grants.append(grant(1, 1, 9))
    assert counts(judge(history))[0] == 2


def test_a_client_does_not_overlap_with_itself_nor_one_name_with_another() -> None:
    history = History(grants=[grant(5, 1, 3), grant(6, 2, 4), grant(7, 2, 4, client=2, name="b")])
    assert counts(judge(history)) == (0, 0, 0, 0)


def test_a_grant_that_came_too_late_to_act_by_overlaps_with_nothing() -> None:
    history = History(grants=[grant(5, 3, 2.5), grant(6, 2, 4, client=2)])
    assert counts(judge(history))[0] == 0


def test_a_token_that_goes_back_is_a_regression() -> None:
    history = History(grants=[grant(5, 1, 2), grant(4, 3, 4, client=2)])
    assert counts(judge(history)) == (0, 1, 0, 0)


def test_a_token_of_two_sessions_is_a_regression_at_whatever_time() -> None:
    history = History(grants=[grant(5, 1, 1), grant(5, 1.05, 1, client=2)])
    assert counts(judge(history)) == (0, 1, 0, 0)


def test_a_token_that_a_session_gets_anew_must_be_greater_too() -> None:
    one = grant(5, 1, 2)
    assert counts(judge(History(grants=[one, replace(one, asked=3, answered=4)]))) == (0, 1, 0, 0)


def test_grants_that_were_asked_for_side_by_side_may_be_answered_in_any_order() -> None:
    history = History(grants=[grant(6, 1, 1), grant(5, 1.05, 1.05, client=2)])
    assert counts(judge(history)) == (0, 0, 0, 0)


def test_a_write_taken_after_a_newer_grant_was_told_is_stale() -> None:
    history = replace(GOOD, writes=[write(5, 1.5, 1), write(6, 2.5, 2), write(5, 2.6, 3)])
    found = judge(replace(history, sights=[]))
    assert (len(found.stale_writes), len(found.state_regressions)) == (1, 1)


def test_a_write_sent_before_the_newer_grant_was_told_may_have_been_taken_in_time() -> None:
    history = History(grants=GOOD.grants, writes=[write(5, 1.95, 1), write(6, 2.5, 2)])
    assert counts(judge(history)) == (0, 0, 0, 0)


def test_a_write_that_nobody_answered_is_stale_when_somebody_reads_it() -> None:
    lost = write(5, 2.5, None, mark="lost")
    history = History(grants=GOOD.grants, writes=[lost])
    assert counts(judge(history)) == (0, 0, 0, 0)
    history.sights.append(sight(1, 5, 2.8, "lost"))
    assert counts(judge(history)) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    "sights",
    [
        pytest.param([sight(1, 5, 1, "x"), sight(1, 5, 2, "y")], id="a version of two writes"),
        pytest.param([sight(2, 5, 1, "x"), sight(1, 5, 2, "y")], id="a version that goes back"),
        pytest.param([sight(2, 5, 1, "x"), sight(0, 0, 2, "")], id="a state that is gone"),
        pytest.param([sight(1, 6, 1, "x"), sight(2, 5, 2, "y")], id="a token that goes back"),
    ],
)
def test_a_state_that_goes_back_is_a_regression(sights: list[Sight]) -> None:
    assert counts(judge(History(sights=sights))) == (0, 0, 0, 1)


def test_a_write_that_was_answered_and_is_gone_is_a_regression() -> None:
    history = History(writes=[write(5, 1, 3)], sights=[sight(2, 5, 1.5, "former")])
    assert counts(judge(history)) == (0, 0, 0, 1)


def test_the_longest_pause_counts_from_the_beginning_and_to_the_end() -> None:
    assert longest_pause([], 1, 5) == 4
    assert longest_pause(GOOD.grants, 0, 5) == 2
