"""Pure: failed VMs that are kept for study instead of being destroyed, and when their time is over.

A kept VM counts no more: its replacement stands already, or is made. What was to be destroyed for
its failure is set aside instead, as far as `keep_failed` goes; nothing else is ever kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from .model import Judged, Keep, Process, Reason, Refusal, Terminate, VmStatus
from .patience import may_retry
from .stock import Stock
from .words import moment, names

_FAILED = {Reason.DEAD, Reason.UNHEALTHY, Reason.BOOT_TIMEOUT}


def set_aside(steps: Iterable[Terminate], stock: Stock) -> tuple[list[Terminate], list[Keep]]:
    """What is destroyed all the same, and what is kept instead."""
    room = stock.seen.spec.policy.keep_failed - len(_kept(stock))
    ended, kept = list[Terminate](), list[Keep]()
    for step in steps:
        if step.reason in _FAILED and len(kept) < room:
            kept.append(Keep(vm=step.vm, reason=step.reason, evidence=step.evidence))
        else:
            ended.append(step)
    return ended, kept


def studied(stock: Stock) -> list[Terminate]:
    """Kept VMs whose time is over, or for which there is no room any more, the oldest first."""
    if stock.is_paused(Process.REPLACE):
        return []
    return [
        Terminate(
            vm=each.vm,
            reason=Reason.STUDY_OVER,
            evidence=f"failed, and kept for study since {moment(each.memory.kept_since)}",
        )
        for each in _over(stock)
        if may_retry(each, stock)
    ]


def notes(stock: Stock) -> tuple[Refusal, ...]:
    """Whom people may study, and until when."""
    kept, over = _kept(stock), _over(stock)
    found = list[Refusal]()
    if kept:
        first = min(_since(each) for each in kept) + stock.seen.spec.policy.keep_failed_time
        message = (
            f"{names(kept)}: failed, and kept for study, the first until {moment(first)}; "
            "done earlier: vmshepherd vm terminate VM"
        )
        found.append(Refusal("KEPT_FOR_STUDY", message))
    if over and stock.is_paused(Process.REPLACE):
        found.append(stock.paused(Process.REPLACE, f"VMs whose study is over: {len(over)}"))
    return tuple(found)


def _over(stock: Stock) -> list[Judged]:
    policy = stock.seen.spec.policy
    kept = sorted(_kept(stock), key=lambda each: (_since(each), each.vm.vm_id))
    too_many = max(0, len(kept) - policy.keep_failed, int(_is_in_the_way(stock)))
    return [
        each
        for place, each in enumerate(kept)
        if (place < too_many or stock.seen.now - _since(each) >= policy.keep_failed_time)
        and not each.vm.protected
    ]


def _is_in_the_way(stock: Stock) -> bool:
    """Whether a quota keeps a VM from being made: one that is only studied makes room for it, one a
    try.
    """
    backoff = stock.memory.backoff
    is_tried_now = backoff.waits_until(stock.seen.now) is None
    return stock.needed > 0 and backoff.reason == "QUOTA_EXCEEDED" and is_tried_now


def _kept(stock: Stock) -> list[Judged]:
    return [each for each in stock.judged if each.status is VmStatus.KEPT]


def _since(judged: Judged) -> datetime:
    return judged.memory.kept_since or judged.memory.first_seen
