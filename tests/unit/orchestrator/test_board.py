from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from orchestrator.board import Board, Phase, Shown, Tally, carried, failed, since_when
from orchestrator.config import Breaker
from orchestrator.model import Deletion, Fleet, Judged, PresetName, Reason, Refusal, VmId, VmStatus
from tests.support.given import CONDEMNED, NOW, SERVING, judged
from tests.support.shell import WEB

SECOND = timedelta(seconds=1)
WINDOW = timedelta(minutes=10)
OTHER = PresetName("other")
SICK = judged("a", VmStatus.UNHEALTHY, memory=CONDEMNED)


def count(
    board: Board,
    *found: Judged,
    preset: PresetName = WEB,
    lost: tuple[Deletion, ...] = (),
    now: datetime = NOW,
) -> Fleet:
    board.count_probed(preset, found, lost=lost, window=WINDOW, now=now)
    return board.fleet(Breaker(), Tally())


def test_a_condition_keeps_the_time_since_which_it_stands() -> None:
    first = carried((), [Refusal("A", "one"), Refusal("B", "two")], now=NOW)
    second = carried(first, [Refusal("A", "changed"), Refusal("C", "new")], now=NOW + SECOND)
    assert [(each.code, each.message, each.since) for each in second] == [
        ("A", "changed", NOW),
        ("C", "new", NOW + SECOND),
    ]


def test_a_status_keeps_the_time_since_which_a_vm_has_it_and_those_that_went_are_forgotten() -> (
    None
):
    first = since_when({}, [judged("a"), judged("b"), judged("c")], now=NOW)
    later = NOW + SECOND
    second = since_when(first, [judged("a"), judged("b", VmStatus.UNHEALTHY)], now=later)
    assert second == {
        VmId("a"): (VmStatus.RUNNING, NOW),
        VmId("b"): (VmStatus.UNHEALTHY, later),
    }


def test_a_cycle_that_failed_hides_nothing_that_was_known() -> None:
    shown = Shown(phase=Phase.STEADY, judged=(judged("a"),), provider="sim")
    after = failed(shown, "UNAVAILABLE", "the cloud is away", is_held=True, now=NOW)
    assert after.phase is Phase.BLOCKED
    assert after.judged == shown.judged
    assert [each.code for each in after.conditions] == ["UNAVAILABLE"]
    assert failed(None, "UNAVAILABLE", "away", is_held=False, now=NOW).phase is Phase.BLOCKED


def test_a_preset_of_another_replica_is_that_ones_until_its_lock_is_held_here() -> None:
    shown = Shown(phase=Phase.ELSEWHERE, holder="b")
    away = failed(shown, "UNAVAILABLE", "the store is away", is_held=False, now=NOW)
    assert (away.phase, away.holder) == (Phase.ELSEWHERE, "b")
    held = failed(shown, "RECORD_UNREADABLE", "garbage", is_held=True, now=NOW)
    assert (held.phase, held.holder) == (Phase.BLOCKED, "")


def test_only_what_is_worth_storing_makes_a_difference() -> None:
    shown = Shown(phase=Phase.STEADY, judged=(judged("a"),))
    assert replace(shown, ended=NOW, lasted=SECOND).fingerprint == shown.fingerprint
    sick = replace(shown, judged=(judged("a", VmStatus.UNHEALTHY),))
    assert sick.fingerprint != shown.fingerprint
    assert replace(shown, phase=Phase.BLOCKED).fingerprint != shown.fingerprint


@pytest.mark.parametrize(
    "otherwise",
    [
        judged("a", is_outdated=True),
        judged("a", leaves_for=Reason.OUTDATED),
        judged("a", VmStatus.KEPT, memory=replace(SERVING, kept_since=NOW)),
        judged("a", protected=True),
        judged("a", addresses=("10.0.0.1",)),
    ],
)
def test_what_people_see_of_a_vm_is_stored_anew_when_it_differs(otherwise: Judged) -> None:
    shown = Shown(judged=(judged("a"),))
    assert replace(shown, judged=(otherwise,)).fingerprint != shown.fingerprint
    protected = replace(shown, protections=frozenset({VmId("a")}))
    assert protected.fingerprint != shown.fingerprint


def test_what_the_prober_says_of_all_is_counted_for_as_long_as_it_is_fresh() -> None:
    board = Board()
    count(board, SICK, judged("b"))
    assert count(board, judged("c"), preset=OTHER, now=NOW + SECOND) == Fleet(failing=1, probed=3)
    assert count(board, judged("b"), now=NOW + 2 * SECOND) == Fleet(failing=0, probed=2)
    late = NOW + WINDOW + 5 * SECOND
    assert count(board, preset=PresetName("third"), now=late) == Fleet()


def test_vms_that_an_erring_prober_has_cost_count_while_it_condemns_others() -> None:
    board = Board()
    lost = (
        Deletion(at=NOW - SECOND, for_health=True),
        Deletion(at=NOW - SECOND, for_health=False),
        Deletion(at=NOW - WINDOW, for_health=True),
    )
    assert count(board, judged("b"), lost=lost) == Fleet(failing=0, probed=1)
    assert count(board, SICK, preset=OTHER) == Fleet(failing=2, probed=3)
    board.forget(WEB)
    assert board.fleet(Breaker(), Tally()) == Fleet(failing=1, probed=1)


def test_vms_that_were_kept_for_their_health_count_as_those_that_were_destroyed_for_it() -> None:
    sick = replace(SERVING, is_unhealthy=True)
    kept = judged("a", VmStatus.KEPT, memory=replace(sick, kept_since=NOW - SECOND))
    old = judged("b", VmStatus.KEPT, memory=replace(sick, kept_since=NOW - WINDOW))
    assert count(Board(), kept, old, SICK) == Fleet(failing=2, probed=2)


def test_how_much_is_too_much_is_configured() -> None:
    fleet = Board().fleet(Breaker(count=7, percent=33), Tally())
    assert (fleet.breaker_count, fleet.breaker_percent) == (7, 33)
