"""Pure: which VMs are to be made now.

As many as are missing, and one for each leaving VM as far as `max_surge` allows; creates whose
answer was lost are repeated under their own request id first.
"""

from __future__ import annotations

from . import intents
from .backoff import may_create
from .model import Create, Process, Refusal
from .stock import Stock, replaceable


def make(stock: Stock) -> tuple[tuple[Create, ...], tuple[Refusal, ...]]:
    """VMs that are missing, and room for the replacements of those that are leaving."""
    seen = stock.seen
    surge = min(len(replaceable(stock)), seen.spec.policy.max_surge)
    missing = stock.count + surge - len(stock.alive) - len(stock.open_intents)
    repeats = intents.to_repeat(stock.open_intents, seen)
    if missing <= 0 and not repeats:
        return (), ()
    if stock.is_paused(Process.CREATE):
        return (), (stock.paused(Process.CREATE, f"{max(missing, 0)} VMs are missing"),)
    allowed, refusals = may_create(stock.memory.backoff, seen)
    if allowed == 0:
        return (), refusals
    repeats = repeats[:allowed]
    number = max(0, min(missing, allowed - len(repeats)))
    fresh = tuple(Create(intent) for intent in intents.new_intents(number, seen))
    return (*repeats, *fresh), refusals
