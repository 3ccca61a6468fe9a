"""What a preset declares that cannot be kept, does nothing, or does not do what it seems to.

Pure.  `reading` asks for every preset that is understood.  What cannot be kept is an error; the
rest are warnings, given for what the preset's own file says, never for what it takes by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from preset_service.domain import Finding, OnRemove, PresetSpec, Replace, Severity
from preset_service.schema import PolicyKeys

_HOUR: Final = timedelta(hours=1)


def found_in(spec: PresetSpec, own: PolicyKeys) -> Iterator[Finding]:
    """Findings without file and line; `own` is what the preset's file says itself."""
    yield from _stuck(spec)
    yield from _without_effect(spec, own)
    yield from _rash(spec, own)


def _stuck(spec: PresetSpec) -> Iterator[Finding]:
    if (spec.policy.max_surge, spec.policy.max_unavailable) == (0, 0):
        yield Finding(
            key="policy",
            message="max_surge and max_unavailable are both 0: nothing could ever be replaced; "
            "set one of them to 1",
        )


def _without_effect(spec: PresetSpec, own: PolicyKeys) -> Iterator[Finding]:
    policy = spec.policy
    if policy.replace is not Replace.ROLLING:
        yield from _idle(own, "canary", "only rollouts have one: write replace: rolling")
        if policy.max_lifetime is None:
            why = "there are no batches: write replace: rolling, or max_lifetime"
            yield from _idle(own, "batch_pause", why)
    if policy.on_remove is not OnRemove.DELETE:
        yield from _idle(own, "removal_grace", "VMs are kept for ever without on_remove: delete")
    if not policy.keep_failed:
        yield from _idle(own, "keep_failed_time", "no failed VM is kept: write keep_failed too")
    if policy.max_deletions_per_window is None:
        why = "nothing is counted in it: write max_deletions_per_window too"
        yield from _idle(own, "deletion_window", why)
    if spec.healthcheck is None or spec.healthcheck.observe_only:
        for key in ("reboots", "rebuilds"):
            yield from _idle(own, key, "no VM is repaired without a healthcheck that acts")


def _idle(own: PolicyKeys, key: str, why: str) -> Iterator[Finding]:
    """What is written for nothing; a zero asks for nothing."""
    if getattr(own, key):
        yield _warning(key, f"has no effect: {why}, or remove it")


def _rash(spec: PresetSpec, own: PolicyKeys) -> Iterator[Finding]:
    if spec.count and own.canary is not None and own.canary > spec.count:
        yield _warning("canary", f"is more than count, {spec.count}: all VMs would be the canary")
    if own.min_healthy_time is not None and own.min_healthy_time > _HOUR:
        yield _warning("min_healthy_time", "is above 1h: each batch of a rollout takes as long")
    if own.max_lifetime is not None and own.max_lifetime < _HOUR:
        yield _warning("max_lifetime", "is below 1h: VMs would be replaced all the time")
    deletes = spec.policy.on_remove is OnRemove.DELETE
    if deletes and own.removal_grace is not None and own.removal_grace < _HOUR:
        why = "is below 1h: a file that is lost would cost its VMs before anybody sees it"
        yield _warning("removal_grace", why)


def _warning(key: str, message: str) -> Finding:
    return Finding(key=f"policy.{key}", message=message, severity=Severity.WARNING)
