"""What a cloud offers, kept for a short time: side-by-side callers share one reading of it.

`inventory` has a shelf for each kind of thing.  A batch of a hundred VMs costs one reading a kind;
what is not found is looked for once more in a fresh reading, so that what was made a moment ago is
found, and a misspelt name costs no reading for each VM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import NotFound

T = TypeVar("T")
Found = TypeVar("Found")

_KEPT: Final = timedelta(seconds=60)
# Younger than this, a reading is believed when it says that there is no such thing.
_BELIEVED: Final = timedelta(seconds=2)


class Shelf(Generic[T]):
    """The last reading of one kind of thing; nothing is read before somebody asks."""

    def __init__(
        self, read: Callable[[], Coroutine[Any, Any, Sequence[T]]], *, clock: Clock
    ) -> None:
        self._read = read
        self._clock = clock
        self._things: Sequence[T] = ()
        self._read_at: timedelta | None = None
        self._reading: asyncio.Task[Sequence[T]] | None = None

    async def things(self, *, kept: timedelta = _KEPT) -> Sequence[T]:
        """All of them, as they were `kept` ago or later.  Raises what the reading raises."""
        if self._read_at is not None and self._clock.elapsed() - self._read_at < kept:
            return self._things
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
            self._reading.add_done_callback(self._end)
        # Whoever goes away must not take the others' reading along.
        return await asyncio.shield(self._reading)

    async def find(self, choose: Callable[[Sequence[T]], Found]) -> Found:
        """What `choose` makes of them; its NotFound is believed of a fresh reading only."""
        try:
            return choose(await self.things())
        except NotFound:
            return choose(await self.things(kept=_BELIEVED))

    def forget(self) -> None:
        """Read anew when somebody asks next."""
        self._read_at = None

    async def close(self) -> None:
        """Give up what is being read."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read_all(self) -> Sequence[T]:
        begun = self._clock.elapsed()
        self._things = await self._read()
        self._read_at = begun
        return self._things

    def _end(self, task: asyncio.Task[Sequence[T]]) -> None:
        self._reading = None
        if not task.cancelled():
            # Heard here, in case that nobody waits any more.
            task.exception()
