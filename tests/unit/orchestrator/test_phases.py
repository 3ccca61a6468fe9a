from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.model import (
    Create,
    Fate,
    Intent,
    Outcome,
    Pause,
    Plan,
    Process,
    Refusal,
    Removal,
    RequestId,
    VmStatus,
    Wishes,
)
from orchestrator.phases import Phase, failures, phase_of
from tests.support.given import NOW, judged, seen, spec

STEP = Create(Intent(request_id=RequestId("r"), name="a", spec_hash="s"), "MISSING", "0 of 1")
SERVING = replace(judged("a"), is_ready=True)


def phase(*codes: str, **plan: object) -> Phase:
    whole = Plan(judged=(SERVING,), **plan)  # type: ignore[arg-type]
    return phase_of(seen(spec()), whole, [Refusal(code, "because") for code in codes])


@pytest.mark.parametrize(
    ("codes", "is_settled", "expected"),
    [
        ((), True, Phase.STEADY),
        ((), False, Phase.CONVERGING),
        (("WAITING_FOR_REPLACEMENT",), False, Phase.CONVERGING),
        (("ROLLOUT_WAITING",), False, Phase.CONVERGING),
        (("REPAIR_UNDER_WAY",), False, Phase.CONVERGING),
        (("OUTDATED",), True, Phase.STEADY),
        (("ROLLOUT_STOPPED",), True, Phase.BLOCKED),
        (("REPAIR_SUSPENDED",), True, Phase.BLOCKED),
        (("OUTDATED", "NO_ROOM"), True, Phase.BLOCKED),
        (("QUOTA_EXCEEDED",), False, Phase.BLOCKED),
    ],
)
def test_a_preset_is_blocked_by_what_time_alone_does_not_end(
    codes: tuple[str, ...], expected: Phase, *, is_settled: bool
) -> None:
    assert phase(*codes, is_settled=is_settled) is expected


def test_steps_make_it_converge_whatever_else_is_refused() -> None:
    assert phase("NO_ROOM", steps=(STEP,)) is Phase.CONVERGING


def test_the_breaker_of_all_blocks_only_those_that_do_not_serve() -> None:
    assert phase("BREAKER_OPEN") is Phase.STEADY
    sick = Plan(judged=(judged("a", VmStatus.UNHEALTHY),))
    assert phase_of(seen(spec()), sick, [Refusal("BREAKER_OPEN", "x")]) is Phase.BLOCKED


def test_a_removed_preset_is_shown_as_that_even_when_it_is_unmanaged_or_paused() -> None:
    pause = Wishes(pause=Pause(actor="anna"))
    unmanaged = seen(replace(spec(), managed=False), wishes=pause)
    assert phase_of(unmanaged, Plan(), []) is Phase.UNMANAGED
    removed = replace(unmanaged, removal=Removal(since=NOW))
    assert phase_of(removed, Plan(), []) is Phase.REMOVED


def test_a_pause_of_everything_is_told_for_as_long_as_it_lasts() -> None:
    for pause, expected in (
        (Pause(), Phase.PAUSED),
        (Pause(processes=frozenset({Process.HEALTH})), Phase.STEADY),
        (Pause(until=NOW - timedelta(seconds=1)), Phase.STEADY),
    ):
        assert phase_of(seen(spec(), wishes=Wishes(pause=pause)), Plan(), []) is expected


def test_steps_that_failed_are_among_the_reasons_and_those_that_were_not_tried_are_not() -> None:
    outcomes = [
        Outcome(step=STEP, fate=Fate.FAILED, reason="QUOTA_EXCEEDED", message="full"),
        Outcome(step=STEP, fate=Fate.UNKNOWN, message="no answer"),
        Outcome(step=STEP, fate=Fate.UNTRIED),
        Outcome(step=STEP, fate=Fate.DONE),
    ]
    assert failures(outcomes) == (
        Refusal("QUOTA_EXCEEDED", "full"),
        Refusal("UNKNOWN", "no answer"),
    )
