"""What a source of presets must do: hand out its files whole, and say when they may have changed.

A driver knows nothing of what stands in the files, and keeps nothing: which preset is the last
good one is judged above it.  Entry-point group `vmshepherd.drivers.preset`; `open` makes one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from vmshepherd_kit.clock import Clock

GROUP: Final = "preset"


class Trait(StrEnum):
    """What a driver promises beyond the port."""

    NOTICES_CHANGES = "noticing changes within a second"
    """`changes` tells of a change within a second, not at the next poll."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something could not be read: a sentence without secrets."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One preset file: its path relative to the source, and its bytes or why there are none."""

    path: str
    content: bytes | Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """All preset files of one revision: what is not in it is known to be gone."""

    revision: str
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A file that a preset's user data name: `path` beneath `root`, which is relative to the
    preset's file; "" is the directory of that file.
    """

    file: str
    root: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a driver finds itself."""

    name: str
    """The source's name in the configuration."""
    where: str
    """The path of its options there, for messages."""
    base_dir: Path
    """What relative paths of the options are relative to."""
    state_dir: Path
    """Where it may keep files of its own."""
    clock: Clock


class PresetSource(Protocol):
    """A driver."""

    traits: ClassVar[frozenset[Trait]]

    @classmethod
    def open(
        cls, options: Mapping[str, Any], *, place: Place
    ) -> AbstractAsyncContextManager[PresetSource]:
        """The driver, ready; `settings.Invalid` when the options are wrong.  A source that cannot
        be reached at present is no reason to fail.
        """
        ...

    @property
    def location(self) -> str:
        """Where the source is, without credentials."""
        ...

    async def read(self) -> Tree:
        """The source, whole, or `Unavailable`.

        A file that is being written or cannot be read is in the tree, with its Problem: it is not
        missing.
        """
        ...

    async def fetch(self, wanted: Sequence[Reference]) -> Sequence[bytes | Problem]:
        """The files that user data name, in order, each at most 64 KiB, from beneath their roots
        only: whatever leads out of the source is a Problem.
        """
        ...

    def changes(self) -> AsyncGenerator[None, None]:
        """A sign whenever the source may have changed since the last sign.  The first comes once
        changes are noticed at all; too many are harmless; it ends only when it is closed.
        """
        ...
