"""Pure: an unhealthy VM is rebooted or rebuilt before it is replaced, where that is allowed.

One VM of a preset at a time, only with a failing probe of the same cycle, and never more often
than the policy says; each repair gives the VM its startup grace again. A repair that fails costs
time, and then the VM is replaced.
"""

from __future__ import annotations

from collections.abc import Collection

from .health import is_confirmed, unconfirmed
from .leaving import is_condemned, next_repair
from .model import Judged, Process, Refusal, Repair, VmId, VmStatus
from .patience import is_in_doubt
from .ranking import leaving_order
from .stock import Stock, is_under_repair
from .words import names


def repair(
    stock: Stock, *, going: Collection[VmId] = ()
) -> tuple[tuple[Repair, ...], tuple[Refusal, ...]]:
    """The VM that is repaired now, and why no other is; what goes anyway needs no repair."""
    seen = stock.seen
    sick = [
        each for each in stock.alive if _is_repairable(each, stock) and each.vm.vm_id not in going
    ]
    if not sick:
        return (), ()
    if stock.is_paused(Process.HEALTH):
        return (), (stock.paused(Process.HEALTH, f"VMs to be repaired: {len(sick)}"),)
    busy = [each for each in stock.alive if is_under_repair(each, seen)]
    if busy:
        return (), (Refusal("REPAIR_UNDER_WAY", f"{names(busy)}: being repaired, others wait"),)
    sure = [
        each
        for each in leaving_order(sick, oldest_first=seen.spec.policy.oldest_leaves_first)
        if is_confirmed(each, seen)
    ]
    if not sure:
        return (), (unconfirmed(sick),)
    method = next_repair(sure[0], seen)
    return tuple(
        Repair(vm=each.vm, method=method, evidence=each.reason) for each in sure[:1] if method
    ), ()


def _is_repairable(judged: Judged, stock: Stock) -> bool:
    return (
        judged.status is VmStatus.UNHEALTHY
        and not judged.vm.protected
        and not is_in_doubt(judged, stock)
        and is_condemned(stock.memory, stock.seen)
        and next_repair(judged, stock.seen) is not None
    )
