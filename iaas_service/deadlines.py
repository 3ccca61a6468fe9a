"""When a caller stops waiting, and how long a provider takes for what it is asked to do: nothing is
begun whose outcome would not be known in time, for that costs far more than to try it again.

`mutations` asks before each call to a driver, and tells how long the call took.  No I/O.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import Refused

from .domain import Deed

# For a caller without a deadline, or with one that no lock would survive.
_MOST: Final = timedelta(seconds=60)
# What is left for the answer to travel back, so that the caller learns of each item.
_ANSWER: Final = timedelta(milliseconds=100)
# Below this nothing is begun: the cloud would hardly answer in time, and the lock might be lost.
_LEAST: Final = timedelta(seconds=1)
# The last call counts so much in the average, and a call may take so many times the average.
_WEIGHT: Final = 0.25
_MARGIN: Final = 1.5
# What nobody has tried for so long is tried again, however slow it was: a reading before each deed
# may take the time that the deed would need, again and again.
_REMEMBERED: Final = timedelta(seconds=60)


class Deadline:
    """When the caller stops waiting, by our clock."""

    def __init__(self, clock: Clock, remaining: float | None) -> None:
        self._clock = clock
        self.granted = _MOST if remaining is None else min(timedelta(seconds=remaining), _MOST)
        self._end = clock.elapsed() + self.granted

    @property
    def now(self) -> timedelta:
        """The time by the same clock."""
        return self._clock.elapsed()

    @property
    def left(self) -> timedelta:
        """How long a call may take so that its answer still arrives."""
        return max(self._end - self._clock.elapsed() - _ANSWER, timedelta(0))

    def require(self, needed: timedelta = _LEAST) -> None:
        """Refuse what would be begun too late.  Refused, with DEADLINE_TOO_SHORT."""
        left = self._end - self._clock.elapsed()
        if left < needed:
            raise Refused(
                f"{max(left, timedelta(0)).total_seconds():.3f} s are left until the deadline, and "
                f"nothing is begun below {needed.total_seconds():.3g} s",
                reason="DEADLINE_TOO_SHORT",
            )


class Pace:
    """Of one provider: the average time of each deed, of late; None is the making of a VM."""

    def __init__(self) -> None:
        # And when it was last tried.
        self._usual: dict[Deed | None, tuple[timedelta, timedelta]] = {}

    def needed(self, deed: Deed | None, granted: timedelta, *, now: timedelta) -> timedelta:
        """What must be left of the time that was granted; never more than half of that, for whoever
        tries nothing never learns that the cloud is quick again.
        """
        usual = self._of_late(deed, now) or timedelta(0)
        return max(_LEAST, min(_MARGIN * usual, granted / 2))

    def took(
        self, deed: Deed | None, time: timedelta, *, now: timedelta, is_whole: bool = True
    ) -> None:
        """A call that ends now took so long; not whole, it was cut off."""
        usual = self._of_late(deed, now)
        if usual is None:
            usual = time
        elif is_whole or time > usual:
            usual += _WEIGHT * (time - usual)
        self._usual[deed] = usual, now

    def _of_late(self, deed: Deed | None, now: timedelta) -> timedelta | None:
        usual, tried = self._usual.get(deed, (None, now))
        return usual if now - tried < _REMEMBERED else None
