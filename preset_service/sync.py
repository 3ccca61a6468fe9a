"""One source kept in step: read at the start, after every sign of a change, and when asked to.

`server` runs one for each source of the configuration.  A source that cannot be read stays as it
was, with the reason.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from preset_service import book
from preset_service.port import PresetSource
from preset_service.shelf import Shelf
from preset_service.workshop import Workshop
from vmshepherd_kit.errors import Unavailable


class Sync:
    """Keeps the shelf in step with one source."""

    def __init__(
        self, name: str, source: PresetSource, *, workshop: Workshop, shelf: Shelf
    ) -> None:
        self.name = name
        self.workshop = workshop
        self._source = source
        self._shelf = shelf
        self._reading = asyncio.Lock()

    async def once(self) -> None:
        """Read the source now; Unavailable when that cannot be done."""
        async with self._reading:
            try:
                tree = await self._source.read()
                held = book.held_by(self._shelf.book, self.name)
                declarations = await self.workshop.declarations(tree.files, held)
            except Unavailable as e:
                self._shelf.unreachable(self.name, e.message)
                raise
            self._shelf.absorb(self.name, revision=tree.revision, declarations=declarations)

    async def attempt(self) -> None:
        """Read the source if that can be done; the shelf remembers why not."""
        try:
            await self.once()
        except Unavailable:
            return

    async def follow(self) -> None:
        """Read the source after every sign of a change, for ever."""
        async with aclosing(self._source.changes()) as signs:
            async for _ in signs:
                await self.attempt()
