"""Pure: what a preset is up to after a cycle, told by its plan and by what keeps it from more.

Called by the cycle and the back-test; it decides nothing: how often a preset is looked at follows
from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from .model import Fate, Observation, Outcome, Plan, Refusal


class Phase(Enum):
    """What a preset is up to."""

    WAITING = auto()
    STEADY = auto()
    CONVERGING = auto()
    BLOCKED = auto()
    PAUSED = auto()
    UNMANAGED = auto()
    REMOVED = auto()
    ELSEWHERE = auto()


# Refusals that time alone will end: what they wait for is under way.
_ON_THE_WAY = {
    "AWAITING_VMS",
    "BUDGET_SPENT",
    "REPAIR_UNDER_WAY",
    "ROLLOUT_WAITING",
    "SLOW_START",
    "WAITING_FOR_REPLACEMENT",
}
# What is told to people, and keeps nothing from being as declared.
_TOLD = {"KEPT_FOR_STUDY", "OUTDATED"}


def phase_of(seen: Observation, plan: Plan, refusals: Sequence[Refusal]) -> Phase:
    """What the preset is up to."""
    pause = seen.wishes.pause
    if seen.removal is not None:
        return Phase.REMOVED
    if not seen.spec.managed:
        return Phase.UNMANAGED
    if pause and not pause.processes and not pause.is_over(seen.now):
        return Phase.PAUSED
    if plan.steps:
        return Phase.CONVERGING
    if any(each.code not in _harmless(plan) for each in refusals):
        return Phase.BLOCKED
    return Phase.STEADY if plan.is_settled else Phase.CONVERGING


def failures(outcomes: Sequence[Outcome]) -> tuple[Refusal, ...]:
    """What steps that failed have to say, beside what the plan refused."""
    return tuple(
        Refusal(each.reason or each.fate.name, each.message)
        for each in outcomes
        if each.fate in {Fate.FAILED, Fate.UNKNOWN}
    )


def _harmless(plan: Plan) -> set[str]:
    # The breaker opens for all presets at once; those whose own VMs serve want nothing from it.
    is_served = plan.is_settled and all(each.is_ready for each in plan.judged)
    return _ON_THE_WAY | _TOLD | ({"BREAKER_OPEN"} if is_served else set())
