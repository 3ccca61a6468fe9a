"""A source of presets in memory: people edit it, the real library reads it.

Stands in place of a driver of preset_service; parsing, defaults, last good presets and the feed are
real.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from preset_service.port import File, Place, PresetSource, Problem, Reference, Trait, Tree
from vmshepherd_kit.errors import Unavailable

# How soon a change is noticed.
NOTICED_AFTER = 0.5


class Repository:
    """The files as they are; whoever reads them is told of changes."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.unreachable_since: float | None = None
        self.revision = 0
        self.readers: list[SimSource] = []

    @property
    def is_unreachable(self) -> bool:
        """Whether nobody can read it."""
        return self.unreachable_since is not None

    def unreachable_for(self, now: float) -> float:
        """For how long nobody could read it, in seconds."""
        return 0.0 if self.unreachable_since is None else now - self.unreachable_since

    def write(self, name: str, keys: Mapping[str, Any]) -> None:
        """Put a preset file."""
        self.put(name, json.dumps(keys))

    def put(self, name: str, text: str) -> None:
        """Put any text, be it a preset or not."""
        self.texts[f"{name}.conf"] = text
        self._changed()

    def remove(self, name: str) -> None:
        """Take a preset file away."""
        self.texts.pop(f"{name}.conf", None)
        self._changed()

    def come_back(self) -> None:
        """Be within reach again; whoever polls notices."""
        self.unreachable_since = None
        self._changed()

    def _changed(self) -> None:
        self.revision += 1
        for reader in self.readers:
            reader.hear()


class SimSource:
    """`preset_service.port.PresetSource` of one incarnation of the service."""

    traits: ClassVar[frozenset[Trait]] = frozenset()

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        repository.readers.append(self)

    @classmethod
    def open(
        cls, options: Mapping[str, Any], *, place: Place
    ) -> AbstractAsyncContextManager[PresetSource]:
        """The simulation makes its sources itself."""
        raise NotImplementedError

    @property
    def location(self) -> str:
        """Nowhere."""
        return "memory"

    async def read(self) -> Tree:
        """Everything as it is now."""
        if self._repository.is_unreachable:
            raise Unavailable("the repository does not answer")
        texts = sorted(self._repository.texts.items())
        files = tuple(File(path=path, content=text.encode()) for path, text in texts)
        return Tree(revision=str(self._repository.revision), files=files)

    async def fetch(self, wanted: Sequence[Reference]) -> Sequence[bytes | Problem]:
        """There are no other files."""
        return [Problem("there is no such file") for _ in wanted]

    async def changes(self) -> AsyncGenerator[None, None]:
        """A sign after each change."""
        while True:
            yield
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(NOTICED_AFTER)

    def hear(self) -> None:
        """There is a change; called by whoever makes it, outside of every process."""
        self._loop.call_soon(self._changed.set)
