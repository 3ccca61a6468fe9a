"""Pure: when too much fails at once, the fault is more likely ours than the VMs', and nothing is
destroyed for health.

It opens on a preset of which too many fail, and on a prober that condemns too many of all VMs it
sees. When it closes, every health timer of the preset starts anew. Thresholds follow the meltdown
rule of BOSH, with a floor for small groups.
"""

from __future__ import annotations

from collections.abc import Sequence

from .health import is_failing, is_watched
from .model import Fleet, Judged, Policy

FLEET_COUNT = 5
FLEET_PERCENT = 20


def why_open(judged: Sequence[Judged], policy: Policy, fleet: Fleet) -> str:
    """Why nothing may be destroyed for its health, or ""."""
    running = [each for each in judged if is_watched(each)]
    failing = sum(1 for each in running if is_failing(each))
    if failing >= policy.breaker_count and 100 * failing >= policy.breaker_percent * len(running):
        return (
            f"{failing} of {len(running)} running VMs fail their check at once "
            f"(limit: {policy.breaker_count} and {policy.breaker_percent} %)"
        )
    if fleet.failing >= FLEET_COUNT and 100 * fleet.failing >= FLEET_PERCENT * fleet.probed:
        return (
            f"{fleet.failing} of all {fleet.probed} VMs that the prober sees fail at once "
            f"(limit: {FLEET_COUNT} and {FLEET_PERCENT} %)"
        )
    return ""
