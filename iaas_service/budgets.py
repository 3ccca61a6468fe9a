"""Budgets: how many VMs may be touched within some time, over all and of one place.

`gates` asks before it lets a mutation pass, and counts what passes.  A budget concerns those VMs
that share something: their provider, their zone, their image, or nothing but the window.  No I/O;
the time is given.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from vmshepherd_kit.errors import Throttled


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a VM is and what it was made from, as far as its cloud tells; "" is a place too."""

    provider: str
    zone: str
    image: str


Share = Callable[[Place], Mapping[str, str]]


class Window:
    """What happened within some time, each thing once: a repeat costs nothing."""

    def __init__(self, length: timedelta) -> None:
        self.length = length
        # In the order of time.
        self._counted: dict[Hashable, tuple[timedelta, Place]] = {}

    def add(self, thing: Hashable, place: Place, now: timedelta) -> None:
        """Count it, from its first time."""
        self._forget(now)
        self._counted.setdefault(thing, (now, place))

    def has(self, thing: Hashable, now: timedelta) -> bool:
        """Whether it is counted already."""
        self._forget(now)
        return thing in self._counted

    def times(self, now: timedelta, is_meant: Callable[[Place], bool]) -> Sequence[timedelta]:
        """When things happened at the places that are meant, oldest first."""
        self._forget(now)
        return [time for time, place in self._counted.values() if is_meant(place)]

    def _forget(self, now: timedelta) -> None:
        while self._counted:
            oldest = next(iter(self._counted))
            if self._counted[oldest][0] + self.length > now:
                return
            del self._counted[oldest]


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """At most `limit` within a window, of those that share the same with a VM."""

    name: str
    """Its key in the settings."""
    limit: int
    share: Share
    """What of a place counts, by words for people; nothing: all places are one."""

    def refusal(
        self, window: Window, place: Place, now: timedelta, *, deed: str
    ) -> Throttled | None:
        """Why one more at this place is too much, and when it is not; None: it may pass."""
        shared = self.share(place)
        times = window.times(now, lambda other: self.share(other) == shared)
        if len(times) < self.limit:
            return None
        of = "".join(f" of {word} {value!r}" for word, value in shared.items())
        refusal = Throttled(
            f"{len(times)} VMs{of} were {deed} within {window.length}, "
            f"and {self.limit} are allowed by iaas.limits.{self.name}",
            reason="BUDGET_SPENT",
            # Forced ones may have gone beyond the limit: all of those must be forgotten first.
            retry_after=times[len(times) - self.limit] + window.length - now,
            budget=self.name,
            limit=str(self.limit),
        )
        refusal.facts.update(shared)
        return refusal


def longest(refusals: Sequence[Throttled | None]) -> Throttled | None:
    """The refusal that lasts longest: whoever comes back then is refused by no other of them."""
    told = [refusal for refusal in refusals if refusal is not None]
    return max(told, key=lambda refusal: refusal.retry_after or timedelta(0), default=None)
