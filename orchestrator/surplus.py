"""Pure: which VMs go because there are more than the count, though nothing is wrong with them.

Called by `remove` with how many are too many. Nobody goes who may be somebody's replacement, and
nobody who serves where too few would serve without it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .model import Judged, Process, Reason, Refusal, Replace, Terminate
from .patience import may_retry
from .ranking import leaving_order, spread, untried_first
from .stock import Stock


def trim(stock: Stock, number: int) -> tuple[list[Terminate], tuple[Refusal, ...]]:
    """VMs that go because there are so many above the count, and why not more."""
    if held := _why_all_stay(stock, number):
        return [], (held,)
    order = _order(stock)
    fit = [each for each in order if may_retry(each, stock)]
    chosen = _dispensable(untried_first(fit), number, stock)
    evidence = f"VMs alive: {len(stock.alive)}, declared: {stock.count}"
    steps = [Terminate(vm=each.vm, reason=Reason.SURPLUS, evidence=evidence) for each in chosen]
    if len(chosen) < min(number, len(fit)):
        message = f"{number - len(chosen)} surplus VMs stay until those that shall stay serve"
        return steps, (Refusal("WAITING_FOR_REPLACEMENT", message),)
    if len(order) < number:
        left = number - len(order)
        message = f"{left} surplus VMs are stopped, protected or unknown: left alone"
        return steps, (Refusal("PARKED", message),)
    return steps, ()


def _why_all_stay(stock: Stock, number: int) -> Refusal | None:
    """Why none of them goes; so many as may surge could be there for a reason."""
    if stock.is_paused(Process.SCALE_IN):
        return stock.paused(Process.SCALE_IN, f"VMs too many: {number}")
    if number > stock.seen.spec.policy.max_surge:
        return None
    if stock.memory.breaker_since is not None:
        message = f"{number} surplus VMs may be replacements: they stay until the breaker closes"
        return Refusal("SURPLUS_STAYS", message)
    if _is_rollout_paused(stock):
        message = f"{number} surplus VMs may be of the rollout: they stay while it is paused"
        return Refusal("SURPLUS_STAYS", message)
    return None


def _order(stock: Stock) -> list[Judged]:
    """Who would go, the first to go first: of equals, those of the fullest zone."""
    policy = stock.seen.spec.policy
    is_outdated_first = policy.replace is not Replace.NEVER
    order = leaving_order(
        stock.sound,
        oldest_first=policy.oldest_leaves_first,
        is_outdated_first=is_outdated_first,
    )
    if not stock.seen.spec.zones:
        return order
    return spread(order, stock.sound, is_outdated_first=is_outdated_first)


def _is_rollout_paused(stock: Stock) -> bool:
    rollout = stock.memory.rollout
    return rollout is not None and rollout.goes_on and stock.is_paused(Process.ROLLOUT)


def _dispensable(order: Iterable[Judged], number: int, stock: Stock) -> list[Judged]:
    """The first so many; of those that serve no more than the rest can do without."""
    ready = sum(1 for each in stock.sound if each.is_ready)
    spare = max(0, ready - (stock.count - stock.seen.spec.policy.max_unavailable))
    chosen = list[Judged]()
    for each in order:
        if len(chosen) == number:
            break
        if each.is_ready and not spare:
            continue
        spare -= each.is_ready
        chosen.append(each)
    return chosen
