"""Changes for whoever watches: each name's newest change, in order, and a way to resume.

It keeps one entry a name, not a queue a watcher: a slow reader misses intermediate states and never
the last one, and holds nothing but its own position.  Removals are remembered up to a bound;
whoever is further behind has to list anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from preset_service.domain import Change, Preset, Removed
from vmshepherd_kit import pages
from vmshepherd_kit.errors import BadRequest, ResumeTokenTooOld

_MOST_REMOVALS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything after some position, and the position that it ends at."""

    changes: tuple[Change, ...]
    position: int
    is_synced: bool


class Feed:
    """The newest change of every name."""

    def __init__(self, life: str, *, most_removals: int = _MOST_REMOVALS) -> None:
        self._life = life
        self._most_removals = most_removals
        self._position = 0
        # In order of their positions, for a name that changes goes to the end.
        self._latest: dict[str, tuple[int, Change]] = {}
        self._removals: dict[str, int] = {}
        self._forgotten = 0
        self._is_synced = False
        self._news = asyncio.Event()

    def publish(self, changes: Sequence[Change], *, is_synced: bool) -> None:
        """Let the watchers know; nothing new wakes nobody."""
        if not changes and is_synced == self._is_synced:
            return
        for change in changes:
            self._position += 1
            self._latest.pop(change.name, None)
            self._removals.pop(change.name, None)
            self._latest[change.name] = (self._position, change)
            if isinstance(change, Removed):
                self._removals[change.name] = self._position
        self._forget()
        self._is_synced = is_synced
        self._news.set()
        self._news = asyncio.Event()

    def snapshot(self) -> Batch:
        """All presets as they are."""
        present = [each for _, each in self._latest.values() if isinstance(each, Preset)]
        present.sort(key=lambda preset: preset.name)
        return Batch(tuple(present), self._position, self._is_synced)

    def since(self, position: int) -> Batch:
        """The changes after a position; ResumeTokenTooOld when some of them are forgotten."""
        if position < self._forgotten:
            raise ResumeTokenTooOld("changes after this token are forgotten: list anew")
        changes: list[Change] = []
        for at, change in reversed(self._latest.values()):
            if at <= position:
                break
            changes.append(change)
        return Batch(tuple(reversed(changes)), self._position, self._is_synced)

    async def beyond(self, batch: Batch) -> None:
        """Wait until there is more than in this batch."""
        while (self._position, self._is_synced) == (batch.position, batch.is_synced):
            await self._news.wait()

    def token(self, position: int) -> str:
        """The position as clients see it."""
        return pages.encode({"life": self._life, "at": position})

    def position_of(self, token: str) -> int:
        """The position of a token of ours; ResumeTokenTooOld when another life gave it out."""
        decoded = pages.decode(token)
        position = decoded.get("at")
        if not isinstance(position, int) or position < 0:
            raise BadRequest("the resume token is not one that was given out")
        if decoded.get("life") != self._life or position > self._position:
            raise ResumeTokenTooOld("the token is of another life of this service: list anew")
        return position

    def _forget(self) -> None:
        while len(self._removals) > self._most_removals:
            name, position = next(iter(self._removals.items()))
            del self._removals[name], self._latest[name]
            self._forgotten = position
