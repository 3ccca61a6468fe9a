"""Tells a counter-example so that a person can follow it: few calls, their times, and the states
between which none fits.

Leaves out only what cannot be to blame: reads without which the rest is inexplicable all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from runtime_service.domain import Acquired, Written

from .calls import LOST, Call, Expire, Refresh, TryLock, in_order
from .check import Violation, violation
from .model import Name

_CHANGES = 12
"""So many calls that changed something are told before the one that nothing explains."""
_STATES = 4
_LATER = 6
_FINEST = 32
_MOST_PLACES = 20_000


def shortest(calls: Sequence[Call], found: Violation) -> tuple[list[Call], Violation]:
    """The calls until that answer, without reads that are not needed to contradict the others."""
    few = _until(calls, found)
    size = len(few)
    while size > len(few) // _FINEST:
        for at in range(0, len(few), size):
            kept = (call for call in few[at : at + size] if not _may_go(call, found))
            fewer = [*few[:at], *kept, *few[at + size :]]
            without = violation(fewer, most_places=_MOST_PLACES) if len(fewer) < len(few) else None
            if without and without.is_proven:
                few, found = _until(fewer, without), without
        size //= 2
    return few, found


def told(name: str, calls: Sequence[Call], found: Violation, *, seed: int) -> str:
    """The story, in lines."""
    few, last = shortest(calls, found)
    shown = _shown(few, last)
    since = few[0].sent
    verdict = "no order explains" if last.is_proven else "the search gave up at (may be all right)"
    return "\n".join(
        [
            f"{name}, seed {seed}: {verdict} what {last.call.client} was told at the end",
            f"  ({len(few) - len(shown)} calls before these agree; milliseconds, sent to answered)",
            *(f"  {_line(call, since)}" for call in shown),
            "  before it, the name can only have been:",
            *(f"    {_state(each, shown)}" for each in last.possible[:_STATES]),
            *([f"    … or {rest} more"] if (rest := len(last.possible) - _STATES) > 0 else []),
            *_times_to_come(calls, last, since),
            *_afterwards(calls, last, since),
        ]
    )


def _times_to_come(calls: Sequence[Call], last: Violation, since: int) -> Iterator[str]:
    """When the holder may expire, if that is after all this."""
    holders = {each.holder for each in last.possible}
    for call in calls:
        if isinstance(call.ask, Expire) and call.ask.session in holders:
            what = "its locks may be free" if call.ask.frees else "it may expire"
            yield f"  {call.ask.session}: {what} from {(call.sent - since) / 1e6:.3f} on"


def _afterwards(calls: Sequence[Call], last: Violation, since: int) -> Iterator[str]:
    """What the next were told: whether it was gone in a moment, or for good."""
    end = last.call.answered or 0
    later = [call for call in calls if call.sent > end and not call.is_open]
    yield from (["  afterwards:"] if later else [])
    yield from (f"  {_line(call, since)}" for call in later[:_LATER])


def _until(calls: Sequence[Call], found: Violation) -> list[Call]:
    """What was sent before that answer; what was answered later is open at that moment."""
    end = found.call.answered or 0
    return in_order(
        call if call.is_open or (call.answered or 0) <= end else _opened(call)
        for call in calls
        if call.sent <= end
    )


def _opened(call: Call) -> Call:
    return replace(call, answer=None, answered=None)


def _may_go(call: Call, found: Violation) -> bool:
    """Whether nothing else can be explained by this call having happened."""
    is_partial = isinstance(call.ask, TryLock) and not call.ask.is_alone and call.answer == LOST
    ends = call.answer is True and not isinstance(call.ask, Refresh)
    changes = isinstance(call.answer, Acquired | Written) or ends or call.is_open
    return not changes and not is_partial and call is not found.call


def _shown(calls: Sequence[Call], last: Violation) -> list[Call]:
    """The newest of those that changed something, and whatever was under way at the same time."""
    changing = [call for call in calls if not isinstance(call.ask, Expire)]
    since = last.call.sent
    recent = [call for call in changing if not call.is_open and (call.answered or 0) < since]
    begin = min([since, *(call.sent for call in recent[-_CHANGES:])])
    ends = {call.session for call in changing if call.sent >= begin}
    return [
        call
        for call in calls
        if (call.sent >= begin and (not isinstance(call.ask, Expire) or call.session in ends))
        or (call.answered or 0) >= begin
    ]


def _line(call: Call, beginning: int) -> str:
    sent = f"{(call.sent - beginning) / 1e6:10.3f}"
    answered = f"{(call.answered - beginning) / 1e6:.3f}" if call.answered else "never"
    answer = "?" if call.answer is None else str(call.answer)
    return f"{sent} … {answered:>10}  {call.client:>5}  {call.ask} → {answer}"


def _state(name: Name, shown: Sequence[Call]) -> str:
    ended = sorted(name.ended & {call.session for call in shown})
    said = ", ".join(ended) or "none of these"
    return f"token {name.token}, holder {name.holder}, {name.state}; ended sessions: {said}"
