"""A circuit to one service of a cloud: open while the service is out of reach or wants to be left
alone, so that a dead cloud costs one call an interval and everybody else is told at once.

`api` and `login` ask it before each call and tell it how the call ended.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import ShepherdError, Throttled, Unavailable

_FAILURES: Final = 3
_INTERVAL: Final = timedelta(seconds=5)
# A cloud that asks for more is asked again all the same.
_LONGEST_REST: Final = timedelta(seconds=60)


class Circuit:
    """Counts failures in a row; `passing` refuses, or lets one call through to probe."""

    def __init__(
        self, name: str, clock: Clock, *, failures: int = _FAILURES, interval: timedelta = _INTERVAL
    ) -> None:
        self._name = name
        self._clock = clock
        self._limit = failures
        self._interval = interval
        self._failures = 0
        self._next_probe: timedelta | None = None
        self._rest_until = timedelta(0)
        self._is_probing = False
        self._why = ""

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, or one is probing."""
        return self._next_probe is not None

    @contextmanager
    def passing(self) -> Iterator[None]:
        """For the time of one call.  Throttled or Unavailable: the call must not be made."""
        self._require_rest_is_over()
        is_probe = self._begin()
        try:
            yield
        finally:
            if is_probe:
                self._is_probing = False

    def succeeded(self) -> None:
        """The service answered."""
        self._failures = 0
        self._next_probe = None

    def failed(self, why: str) -> None:
        """The service could not be asked, or gave no answer."""
        self._failures += 1
        self._why = why
        if self._failures >= self._limit:
            self._next_probe = self._clock.elapsed() + self._interval

    def rest(self, duration: timedelta) -> None:
        """The service wants no calls for so long."""
        until = self._clock.elapsed() + min(duration, _LONGEST_REST)
        self._rest_until = max(self._rest_until, until)

    def _begin(self) -> bool:
        if self._next_probe is None:
            return False
        left = self._next_probe - self._clock.elapsed()
        if self._is_probing or left > timedelta(0):
            raise self._refusal(max(left, timedelta(seconds=1)))
        self._is_probing = True
        return True

    def _refusal(self, left: timedelta) -> ShepherdError:
        return Unavailable(
            f"{self._name} is out of reach ({self._why}): nothing was sent, and it is tried again "
            f"every {self._interval.total_seconds():g} s",
            reason="CLOUD_UNREACHABLE",
            retry_after=left,
        )

    def _require_rest_is_over(self) -> None:
        left = self._rest_until - self._clock.elapsed()
        if left > timedelta(0):
            raise Throttled(
                f"{self._name} asked to be left alone for a while: nothing was sent",
                reason="HELD_BACK",
                retry_after=left,
            )
