"""Pure: when too much fails at once, the fault is more likely ours than the VMs', and nothing is
destroyed for health.

It opens on a preset of which too many fail, those destroyed for it a while ago included, and on a
prober that condemns too many of all VMs it sees. When it closes, every health timer of the preset
starts anew. Thresholds follow the meltdown rule of BOSH, with a floor for small groups.
"""

from __future__ import annotations

from collections.abc import Sequence

from .health import is_failing, is_watched
from .model import Fleet, Judged, Policy


def why_open(judged: Sequence[Judged], policy: Policy, fleet: Fleet, *, lost: int = 0) -> str:
    """Why nothing may be destroyed for its health, or ""; `lost` VMs were, within the window."""
    running = [each for each in judged if is_watched(each)]
    failing = sum(1 for each in running if is_failing(each))
    bad, all_of_them = failing + lost, len(running) + lost
    if (
        failing
        and bad >= policy.breaker_count
        and 100 * bad >= policy.breaker_percent * all_of_them
    ):
        also = f", and {lost} were destroyed or kept for it lately" if lost else ""
        return (
            f"{failing} of {len(running)} running VMs fail their check at once{also} "
            f"(limit: {policy.breaker_count} and {policy.breaker_percent} %)"
        )
    most, percent = fleet.breaker_count, fleet.breaker_percent
    if fleet.failing >= most and 100 * fleet.failing >= percent * fleet.probed:
        return (
            f"{fleet.failing} of all {fleet.probed} VMs that the prober sees fail at once "
            f"(limit: {most} and {percent} %)"
        )
    return ""
