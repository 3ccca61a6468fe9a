"""What a cloud offers, kept for a short time: side-by-side callers share one reading of it.

`inventory` has a shelf for each kind of thing.  A batch of a hundred VMs costs one reading a kind;
what is not found is looked for once more in a fresh reading, so that what was made a moment ago is
found, and a misspelt name costs no reading for each VM.  What ages is read anew in the background,
so that nobody waits for what is in use; a fault of that is nobody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import NotFound
from vmshepherd_kit.tasks import hear

T = TypeVar("T")
Found = TypeVar("Found")

_KEPT: Final = timedelta(seconds=60)
# From then on a new reading is under way; until the old one ends, it may fail a few times.
_AGEING: Final = timedelta(seconds=40)
_PAUSE: Final = timedelta(seconds=5)
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
        self._reading: asyncio.Task[Sequence[T]] | None = None
        self._begun = -_KEPT
        self._forgotten_at = -_KEPT
        self._is_needed = False
        self.read_at: timedelta | None = None
        """When the reading began that is kept."""

    async def things(self, *, kept: timedelta = _KEPT) -> Sequence[T]:
        """All of them, as they were `kept` ago or later.  Raises what the reading raises."""
        asked = self._clock.elapsed()
        while not self._is_of(asked, kept):
            # Whoever goes away must not take the others' reading along.
            self._reading = self._under_way() or self._begin()
            await asyncio.shield(self._reading)
        self._renew()
        return self._things

    async def find(self, choose: Callable[[Sequence[T]], Found]) -> Found:
        """What `choose` makes of them; its NotFound is believed of a fresh reading only.

        What is looked for once will be looked for again: from now on `freshen` keeps it ready.
        """
        self._is_needed = True
        try:
            return choose(await self.things())
        except NotFound:
            return choose(await self.things(kept=_BELIEVED))

    def freshen(self) -> None:
        """Read in the background what may be needed soon, if it ages.  Never raises."""
        if self._is_needed:
            self._renew()

    def forget(self) -> None:
        """Read anew when somebody asks next."""
        self.read_at = None
        self._forgotten_at = self._clock.elapsed()

    async def close(self) -> None:
        """Give up what is being read."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _is_of(self, asked: timedelta, kept: timedelta) -> bool:
        if self.read_at is None:
            return False
        return self.read_at >= asked or asked - self.read_at < kept

    def _renew(self) -> None:
        now = self._clock.elapsed()
        is_ageing = self.read_at is None or now - self.read_at >= _AGEING
        if is_ageing and self._under_way() is None and now - self._begun >= _PAUSE:
            self._reading = self._begin()

    def _under_way(self) -> asyncio.Task[Sequence[T]] | None:
        # One that is done, and whose end nobody has heard of yet, is waited for by nobody.
        return None if self._reading is None or self._reading.done() else self._reading

    def _begin(self) -> asyncio.Task[Sequence[T]]:
        self._begun = self._clock.elapsed()
        reading = asyncio.create_task(self._read_all(self._begun))
        reading.add_done_callback(self._end)
        return reading

    async def _read_all(self, begun: timedelta) -> Sequence[T]:
        things = await self._read()
        if begun >= self._forgotten_at:
            self._things, self.read_at = things, begun
        return things

    def _end(self, task: asyncio.Task[Sequence[T]]) -> None:
        if self._reading is task:
            self._reading = None
        # Nobody may wait any more.
        hear(task)
