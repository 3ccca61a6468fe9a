from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.board import FLEET_WINDOW, Board, Phase, Shown, carried, failed, since_when
from orchestrator.model import Fleet, PresetName, Refusal, VmId, VmStatus
from tests.support.given import CONDEMNED, NOW, judged
from tests.support.shell import WEB

SECOND = timedelta(seconds=1)


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
    after = failed(shown, "UNAVAILABLE", "the cloud is away", now=NOW)
    assert after.phase is Phase.BLOCKED
    assert after.judged == shown.judged
    assert [each.code for each in after.conditions] == ["UNAVAILABLE"]
    assert failed(None, "UNAVAILABLE", "away", now=NOW).phase is Phase.BLOCKED


def test_only_what_is_worth_storing_makes_a_difference() -> None:
    shown = Shown(phase=Phase.STEADY, judged=(judged("a"),))
    assert replace(shown, ended=NOW, lasted=SECOND).fingerprint == shown.fingerprint
    sick = replace(shown, judged=(judged("a", VmStatus.UNHEALTHY),))
    assert sick.fingerprint != shown.fingerprint
    assert replace(shown, phase=Phase.BLOCKED).fingerprint != shown.fingerprint


def test_what_the_prober_says_of_all_is_counted_for_as_long_as_it_is_fresh() -> None:
    board = Board()
    sick = judged("a", VmStatus.UNHEALTHY, memory=CONDEMNED)
    board.count_probed(WEB, [sick, judged("b")], now=NOW)
    board.count_probed(PresetName("other"), [judged("c")], now=NOW + SECOND)
    assert board.fleet() == Fleet(failing=1, probed=3)
    board.count_probed(WEB, [judged("b")], now=NOW + 2 * SECOND)
    assert board.fleet() == Fleet(failing=0, probed=2)
    board.count_probed(PresetName("third"), [], now=NOW + FLEET_WINDOW + 5 * SECOND)
    assert board.fleet() == Fleet()
