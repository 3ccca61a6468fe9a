"""Figures of bench/replicas.py: how many, the median, the worst, and how near that is to its limit.
Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.replicas_errands import HUNG_LIMIT_SECONDS, LIMIT_SECONDS, Reached
from bench.replicas_fleet import Kind
from bench.replicas_takeover import Takeover


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """How many, the median and the worst."""
    found = sorted(seconds)
    if not found:
        return {"number": 0}
    return {
        "number": len(found),
        "median": round(statistics.median(found), 3),
        "worst": round(found[-1], 3),
    }


def against(seconds: Iterable[float], limit: float) -> dict[str, float]:
    """The same, and the worst as a part of what is allowed."""
    found = spread(seconds)
    return {**found, "worst_of_limit": round(found.get("worst", 0) / limit, 2)}


def of_wishes(reached: Sequence[Reached], *, is_store_whole: bool) -> dict[str, dict[str, float]]:
    """By what was wished, with all runtime services there or without one."""
    found = [each for each in reached if each.is_store_whole is is_store_whole]
    limit = LIMIT_SECONDS if is_store_whole else HUNG_LIMIT_SECONDS
    return {
        what: against([each.seconds for each in found if each.what == what], limit)
        for what in sorted({each.what for each in found})
    }


def of_takeovers(over: Iterable[Takeover]) -> dict[str, Any]:
    """By their cause; those with several causes have limits of their own, by the last one."""
    taken = [each for each in over if each.to_another]

    def of(chosen: Callable[[Takeover], bool]) -> dict[str, float]:
        found = [each for each in taken if chosen(each)]
        ratio = max((each.seconds / each.allowed for each in found), default=0.0)
        return {**spread([each.seconds for each in found]), "worst_of_limit": round(ratio, 2)}

    single = {
        str(kind): of(lambda each, kind=kind: each.is_single and each.causes == {kind})  # type: ignore[misc]
        for kind in Kind
    }
    return {
        **single,
        "several": of(lambda each: bool(each.causes) and not each.is_single),
        "a move": of(lambda each: not each.causes),
    }


def late_sentences(over: Iterable[Takeover], reached: Iterable[Reached]) -> list[str]:
    """What took longer than it may."""
    late = [
        f"{each.preset}: {each.seconds:.1f} s without a holder after "
        f"{' + '.join(sorted(each.causes)) or 'a move'}, where {each.allowed:.1f} s are allowed"
        for each in over
        if each.is_late
    ]
    slow = [
        f"{each.preset}: {each.what} through {each.through} was answered after "
        f"{each.answered:.2f} s and done by {each.by} after {each.seconds:.2f} s"
        for each in reached
        if each.seconds > each.limit
    ]
    return late + slow
