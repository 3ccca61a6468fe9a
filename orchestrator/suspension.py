"""Pure: repair that suspends itself when no replacement becomes healthy.

After so many failed births in a row something else is broken, and to go on replacing would only
churn. Missing VMs are still tried, one at a time; what runs is left alone until the spec changes,
a VM stands, or a person resumes the preset. A resumption is counted, not timed: the clocks of two
replicas need not agree.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from .backoff import BOOT_FAILED
from .model import Backoff, Memory, Observation, Refusal, Spec, Wishes
from .words import moment


def since_when(before: datetime | None, backoff: Backoff, seen: Observation) -> datetime | None:
    """Since when repair is suspended; None while it is not."""
    if backoff.failures == 0:
        return None
    most = seen.spec.policy.suspend_after
    is_too_much = backoff.reason == BOOT_FAILED and 0 < most <= backoff.failures
    return before or (seen.now if is_too_much else None)


def resumed(memory: Memory, wishes: Wishes) -> Memory:
    """The memory of a preset that a person resumed: what suspended itself is tried again. A counter
    that went backwards was lost, and is nobody's wish.
    """
    if wishes.resumes <= memory.resumes_seen:
        return replace(memory, resumes_seen=wishes.resumes)
    rollout = memory.rollout
    if rollout is not None:
        rollout = replace(rollout, stopped_at=None, stop_message="")
    return replace(
        memory,
        backoff=Backoff(),
        suspended_since=None,
        shortages=(),
        rollout=rollout,
        resumes_seen=wishes.resumes,
    )


def notes(memory: Memory, spec: Spec) -> tuple[Refusal, ...]:
    """What people should know of it."""
    if memory.suspended_since is None:
        return ()
    message = (
        f"repair rests since {moment(memory.suspended_since)}: {memory.backoff.failures} VMs in a "
        f"row failed before they proved themselves: {memory.backoff.message}. Mend the preset, or "
        f"try again: vmshepherd preset resume {spec.name}"
    )
    return (Refusal("REPAIR_SUSPENDED", message),)
