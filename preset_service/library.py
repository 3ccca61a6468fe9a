"""The whole of this service but for gRPC: the shelf, and every source kept in step with it.

`server` opens it around its drivers, and the contract suite around one driver.  The sources can be
exchanged while it runs: the presets stand meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from preset_service.book import Source
from preset_service.last_good import LastGood
from preset_service.port import PresetSource
from preset_service.schema import Defaults
from preset_service.shelf import Shelf
from preset_service.sync import Sync
from preset_service.workshop import Workshop
from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock

# A source that answers slowly must not keep the others' presets back.
_FIRST_READING: Final = timedelta(seconds=10)

_log = log.get("preset")


@dataclass(frozen=True, kw_only=True)
class Supplier:
    """A source by its name in the configuration, and the driver that reads it."""

    name: str
    driver: str
    source: PresetSource


class Library:
    """The presets of all sources."""

    def __init__(self, shelf: Shelf, group: asyncio.TaskGroup, *, clock: Clock) -> None:
        self.shelf = shelf
        self.syncs: Mapping[str, Sync] = {}
        self._group = group
        self._clock = clock
        self._following: Sequence[asyncio.Task[None]] = ()

    async def stock(self, suppliers: Iterable[Supplier], defaults: Defaults) -> None:
        """Follow these sources from now on instead of the former ones.  On return, each was read
        once or has had ten seconds.
        """
        await self.close()
        listed = list(suppliers)
        self.shelf.restock(
            Source(name=each.name, driver=each.driver, location=each.source.location)
            for each in listed
        )
        self.syncs = {each.name: self._sync(each, defaults) for each in listed}
        first = [self._group.create_task(sync.attempt()) for sync in self.syncs.values()]
        follow = [self._group.create_task(sync.follow()) for sync in self.syncs.values()]
        self._following = [*first, *follow]
        if not first:
            return
        _, late = await asyncio.wait(first, timeout=_FIRST_READING.total_seconds())
        if late:
            _log.warning("sources have not answered yet", sources=len(late))

    async def close(self) -> None:
        """Follow no source any more."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        self._following = ()

    def _sync(self, supplier: Supplier, defaults: Defaults) -> Sync:
        workshop = Workshop(supplier.source, defaults=defaults, clock=self._clock)
        return Sync(supplier.name, supplier.source, workshop=workshop, shelf=self.shelf)


@asynccontextmanager
async def running(last_good: LastGood, *, life: str, clock: Clock) -> AsyncIterator[Library]:
    """A library with the last good presets and no source yet.

    A fault of ours in the background ends the block: better no service than one that has stopped
    to look.
    """
    shelf = Shelf(await last_good.load(), life=life, clock=clock)
    try:
        async with asyncio.TaskGroup() as group:
            library = Library(shelf, group, clock=clock)
            saving = group.create_task(shelf.keep(last_good))
            try:
                yield library
            finally:
                await library.close()
                shelf.close()
                await asyncio.wait([saving])
    except BaseExceptionGroup as e:
        if len(e.exceptions) == 1:
            # What the block raised leaves it as it was raised.
            raise e.exceptions[0]  # noqa: B904
        raise
