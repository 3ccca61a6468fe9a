"""Waiting for a condition, never for a time: who waits says for what, and is told what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import grpc

T = TypeVar("T")

PATIENCE_SECONDS = 60.0


def until(
    question: Callable[[], T], what: str, *, seconds: float = PATIENCE_SECONDS, pause: float = 0.05
) -> T:
    """The first answer that is true; a server that is away, or a file that is missing, is none."""
    end = time.monotonic() + seconds
    while True:
        try:
            answer: T | str = question()
            if answer:
                return answer  # type: ignore[return-value]
        except (grpc.RpcError, OSError) as e:
            answer = repr(e)
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {answer!r}")
        time.sleep(pause)


class Stopwatch:
    """Measures for people: what is measured is printed, and never asserted."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def tell(self, what: str) -> None:
        """Print how long it took."""
        print(f"measured: {what}: {time.monotonic() - self._start:.2f} s")  # noqa: T201
