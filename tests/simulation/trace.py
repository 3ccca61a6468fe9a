"""What happened, in order: a running hash of everything, and the last lines for people.

Two runs of one seed are the same run exactly when their hashes are.
"""

from __future__ import annotations

import hashlib
from collections import deque


class Trace:
    """Deliveries, decisions, faults and mutations, each a line."""

    def __init__(self, *, keeps: int = 400) -> None:
        self._hash = hashlib.sha256()
        self.lines: deque[str] = deque(maxlen=keeps)
        self.number = 0

    def add(self, now: float, what: str) -> None:
        """One more line."""
        line = f"{now:10.3f} {what}"
        self._hash.update(line.encode())
        self.lines.append(line)
        self.number += 1

    def mark(self, now: float, what: str) -> None:
        """The same of something too frequent for people: it counts for the hash alone."""
        self._hash.update(f"{now:.3f} {what}".encode())
        self.number += 1

    @property
    def digest(self) -> str:
        """Names this run."""
        return self._hash.hexdigest()[:16]
