"""Pure: which VMs are to be made now.

As many as are missing, and one for each leaving VM as far as `max_surge` allows; creates whose
answer was lost are repeated under their own request id first. Of what and where the new ones are
made is `placement`.
"""

from __future__ import annotations

from . import intents, placement
from .backoff import BOOT_FAILED, may_create
from .model import Create, Process, Refusal, VmStatus
from .stock import Stock


def make(stock: Stock) -> tuple[tuple[Create, ...], tuple[Refusal, ...]]:
    """VMs that are missing, and room for the replacements of those that are leaving."""
    seen = stock.seen
    missing = stock.needed - len(stock.open_intents)
    # Intents that are not all needed wait: one of them may turn out to be there already.
    repeats = intents.to_repeat(stock.open_intents, seen) if missing >= 0 else ()
    if missing <= 0 and not repeats:
        return (), _awaited(stock)
    if stock.is_paused(Process.CREATE):
        return (), (stock.paused(Process.CREATE, f"VMs missing: {max(missing, 0)}"),)
    allowed, refusals = may_create(stock.memory.backoff, seen)
    if allowed == 0:
        return (), refusals
    if stock.memory.backoff.failures and not repeats and _is_trying(stock):
        return (), (Refusal("SLOW_START", "the VM that is tried alone has not proved itself yet"),)
    repeats = repeats[:allowed]
    number = max(0, min(missing, allowed - len(repeats)))
    places, shortages = placement.choose(number, stock)
    fresh = tuple(Create(each, *_why(stock)) for each in intents.new_intents(places, seen))
    return (*repeats, *fresh), (*refusals, *shortages)


def _why(stock: Stock) -> tuple[str, str]:
    """The reason for new VMs, and its evidence."""
    there = f"{len(stock.alive)} of {stock.count} VMs are there"
    if len(stock.alive) < stock.count:
        return "MISSING", there
    return "REPLACEMENT", f"{there}, and {len(stock.leaving)} of them shall leave"


def _awaited(stock: Stock) -> tuple[Refusal, ...]:
    if not stock.open_intents:
        return ()
    message = f"creates sent whose VMs are not seen yet: {len(stock.open_intents)}"
    return (Refusal("AWAITING_VMS", message),)


def _is_trying(stock: Stock) -> bool:
    """Whether a trial is under way: a create without an answer, or a VM that has not proved itself
    yet after failed births, and not for so long that nothing can be expected of it any more.
    """
    if stock.open_intents:
        return True
    patience = stock.seen.spec.policy.boot_timeout
    return stock.memory.backoff.reason == BOOT_FAILED and any(
        each.status is VmStatus.PENDING and stock.seen.now - each.memory.first_seen < patience
        for each in stock.sound
    )
