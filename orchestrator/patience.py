"""Pure: terminations that failed, and those that nobody answered.

A VM that cannot be destroyed is tried again later and stands behind the others, so that it starves
nobody. One whose termination got no answer may be going: for a while it counts as gone where VMs
are destroyed, and as alive where VMs are made.
"""

from __future__ import annotations

from datetime import timedelta

from .model import Judged, Refusal
from .stock import Stock
from .words import names

REPEAT_TERMINATION_AFTER = timedelta(seconds=60)
RETRY_TERMINATION_AFTER = timedelta(seconds=30)
# Clouds keep the record of an ended VM for up to an hour after it was sent away.
REPEAT_REMOVAL_AFTER = timedelta(minutes=10)


def was_asked_lately(judged: Judged, stock: Stock) -> bool:
    """Whether its termination is so fresh that it may still be carried out."""
    since = judged.memory.terminating_since
    return since is not None and stock.seen.now - since < REPEAT_TERMINATION_AFTER


def is_lingering(judged: Judged, stock: Stock) -> bool:
    """Whether it was sent away, and what is left of it is the cloud's business for now."""
    since = judged.memory.terminating_since
    is_fresh = since is not None and stock.seen.now - since < REPEAT_REMOVAL_AFTER
    return judged.memory.is_terminating and is_fresh


def may_retry(judged: Judged, stock: Stock) -> bool:
    """Whether its termination did not fail a moment ago."""
    failed_at = judged.memory.terminate_failed_at
    return failed_at is None or stock.seen.now - failed_at >= RETRY_TERMINATION_AFTER


def is_in_doubt(judged: Judged, stock: Stock) -> bool:
    """Whether it may be going for all we know."""
    return judged.memory.is_doubtful and was_asked_lately(judged, stock)


def untouched(stock: Stock) -> tuple[Refusal, ...]:
    """Which VMs are not tried now, and why."""
    doubtful = [each for each in stock.alive if is_in_doubt(each, stock)]
    refused = [
        each for each in stock.judged if not may_retry(each, stock) and not is_in_doubt(each, stock)
    ]
    notes = (
        ("TERMINATION_UNKNOWN", doubtful, "its termination got no answer, it may be going"),
        ("TERMINATION_FAILED", refused, "its termination failed, it is tried again soon"),
    )
    return tuple(
        Refusal(code, f"{names(group)}: {message}") for code, group, message in notes if group
    )
