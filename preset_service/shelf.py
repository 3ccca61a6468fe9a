"""The one place where the state of this service lives: the book, its feed, and its copy on disk.

`sync` puts readings in, the servicer reads.  Every change is published at once and saved soon
after; a disk that is full stops nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from preset_service import book
from preset_service.book import Book, Declaration, Source
from preset_service.domain import Change, Preset, Removed
from preset_service.feed import Feed
from preset_service.last_good import LastGood
from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock

_log = log.get("preset")


class Shelf:
    """The presets as they are known now."""

    def __init__(self, last_good: Iterable[Preset], *, life: str, clock: Clock) -> None:
        self._clock = clock
        self._is_unsaved = False
        self._is_closed = False
        self._to_do = asyncio.Event()
        self.book = Book(presets={preset.name: preset for preset in last_good})
        self.feed = Feed(life)
        self.feed.publish(list(self.book.presets.values()), is_synced=False)

    def restock(self, sources: Iterable[Source]) -> None:
        """Go on with other sources, none of which is read yet."""
        self.book, changes = book.restocked(self.book, sources)
        self._publish(changes)

    def absorb(self, source: str, *, revision: str, declarations: Sequence[Declaration]) -> None:
        """Take in a source that was read whole."""
        self.book, changes = book.absorb(
            self.book,
            source,
            revision=revision,
            declarations=declarations,
            now=self._clock.wall(),
        )
        self._publish(changes)
        if changes:
            _log.info(
                "source has changed",
                source=source,
                revision=revision,
                changed=sum(isinstance(change, Preset) for change in changes),
                removed=sum(isinstance(change, Removed) for change in changes),
                presets=len(self.book.presets),
            )

    def unreachable(self, source: str, error: str) -> None:
        """Note that a source cannot be read."""
        if self.book.sources[source].error != error:
            _log.warning("source unreadable, its presets stay", source=source, error=error)
        self.book = book.unreachable(self.book, source, error)

    async def keep(self, last_good: LastGood) -> None:
        """Save every change, until `close`, after which it saves what is unsaved and returns."""
        while not self._is_closed:
            await self._to_do.wait()
            self._to_do.clear()
            if self._is_unsaved:
                await self._save(last_good)

    def close(self) -> None:
        """No change will come any more."""
        self._is_closed = True
        self._to_do.set()

    def _publish(self, changes: Sequence[Change]) -> None:
        self.feed.publish(changes, is_synced=self.book.is_synced)
        for change in changes:
            _tell(change)
        if changes:
            self._is_unsaved = True
            self._to_do.set()

    async def _save(self, last_good: LastGood) -> None:
        self._is_unsaved = False
        try:
            await last_good.save(tuple(self.book.presets.values()))
        except OSError as e:
            # The presets in memory are what counts; the next change tries again.
            self._is_unsaved = True
            _log.warning("last good presets not saved", error=str(e))


def _tell(change: Change) -> None:
    if isinstance(change, Removed):
        _log.info("preset removed", preset=change.name, source=change.source)
    elif change.findings:
        worst = change.findings[0]
        _log.warning(
            "preset has findings",
            preset=change.name,
            file=change.file,
            line=worst.line,
            key=worst.key,
            problem=worst.message,
            findings=len(change.findings),
            last_good=change.spec is not None,
        )
    else:
        _log.debug("preset read", preset=change.name, file=change.file, spec_hash=change.spec_hash)
