"""Waking whoever waits for the journal to grow, within one process.

Drivers without a notice of their own use it.  It holds a number, never an event: a reader reads
from the store at its own pace, so that a slow one costs nothing.
"""

from __future__ import annotations

import asyncio


class Bell:
    """The newest sequence of the journal, and the readers that wait for a newer one."""

    def __init__(self, newest: int) -> None:
        self._newest = newest
        self._set_back = 0
        self._rung = asyncio.Event()

    def ring(self, newest: int) -> None:
        """Tell that the journal reaches so far."""
        if newest > self._newest:
            self._newest = newest
            self._wake()

    def correct(self, newest: int) -> None:
        """Tell how far it reaches by its own word: less far than it was told, when a store has
        lost its latest events.  Whoever waits looks again then.
        """
        if newest < self._newest:
            self._newest = newest
            self._set_back += 1
            self._wake()
        self.ring(newest)

    async def grown_beyond(self, sequence: int) -> None:
        """Wait until it reaches further than that, or was set back."""
        before = self._set_back
        while self._newest <= sequence and self._set_back == before:
            await self._rung.wait()

    def _wake(self) -> None:
        self._rung.set()
        self._rung = asyncio.Event()
