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
        self._rung = asyncio.Event()

    def ring(self, newest: int) -> None:
        """Tell that the journal reaches so far."""
        if newest > self._newest:
            self._newest = newest
            self._rung.set()
            self._rung = asyncio.Event()

    async def grown_beyond(self, sequence: int) -> None:
        """Wait until it reaches further than that."""
        while self._newest <= sequence:
            await self._rung.wait()
