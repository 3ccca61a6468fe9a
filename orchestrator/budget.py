"""Pure: how many VMs of a preset may be destroyed in one cycle and within a window.

The limits over all presets, zones, images and providers are those of the iaas_service, which sees
them all; here is what the preset itself allows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from .model import Deletion, Memory, Observation, Policy, Refusal, Terminate, VmMemory
from .ranking import trials
from .stock import Stock


def within_budget(
    steps: list[Terminate], stock: Stock
) -> tuple[list[Terminate], tuple[Refusal, ...]]:
    """As many of these steps as may be taken now, and why not more."""
    allowed, limit = _allowed(stock)
    if len(steps) <= allowed:
        return steps, ()
    memories = {each.vm.vm_id: each.memory for each in stock.judged}
    steps = sorted(steps, key=lambda step: trials(memories[step.vm.vm_id]))
    message = f"VMs still to go: {len(steps) - allowed}; {limit}"
    return steps[:allowed], (Refusal("BUDGET_SPENT", message),)


def recent(deletions: Iterable[Deletion], window: timedelta, now: datetime) -> list[Deletion]:
    """The deletions within a window that ends now."""
    return [each for each in deletions if now - each.at < window]


def remembered(memory: Memory, policy: Policy, now: datetime) -> tuple[Deletion, ...]:
    """The deletions that some window still reaches."""
    longest = max(policy.deletion_window, policy.breaker_window)
    return tuple(recent(memory.deletions, longest, now))


def lost_to_health(seen: Observation) -> int:
    """VMs destroyed or kept for their health so lately that the breaker counts them."""
    window, now = seen.spec.policy.breaker_window, seen.now
    destroyed = sum(1 for each in recent(seen.memory.deletions, window, now) if each.for_health)
    kept = seen.memory.vms.values()
    return destroyed + sum(1 for each in kept if was_kept_for_health(each, window, now=now))


def was_kept_for_health(memory: VmMemory, window: timedelta, *, now: datetime) -> bool:
    """Whether a VM was set aside for its health within a window that ends now."""
    since = memory.kept_since
    return memory.is_unhealthy and since is not None and now - since < window


def _allowed(stock: Stock) -> tuple[int, str]:
    policy, now = stock.seen.spec.policy, stock.seen.now
    size = max(stock.count, len(stock.alive))
    declared = policy.max_deletions_per_cycle
    cycle = declared if declared is not None else max(1, size // 10)
    most = policy.max_deletions_per_window
    if most is None:
        return cycle, f"budget of a cycle: {cycle}"
    spent = len(recent(stock.memory.deletions, policy.deletion_window, now))
    left = max(0, most - spent)
    if left >= cycle:
        return cycle, f"budget of a cycle: {cycle}"
    minutes = policy.deletion_window.total_seconds() / 60
    return left, f"{spent} were destroyed within {minutes:g} min, and {most} are allowed"
