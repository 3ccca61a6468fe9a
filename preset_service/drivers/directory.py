"""Presets from a directory: every `*.conf`, `*.yaml` and `*.yml` in it, not in those beneath it.

A state of the directory counts once it has been seen twice, a moment apart: a file that is being
written is told of as such, and an editor's swap of two files is no removal.  Nothing is read
outside of the directory.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator
from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

from preset_service import beneath
from preset_service.domain import MAX_TEXT_BYTES, MAX_USER_DATA_BYTES
from preset_service.port import File, Place, Problem, Reference, Trait, Tree
from vmshepherd_kit import log, settings
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import Unavailable
from vmshepherd_kit.settings import Settings

_SUFFIXES: Final = (".conf", ".yaml", ".yml")
# Between the two looks: longer when something is missing, for a rename may be half done.
_SETTLING: Final = timedelta(milliseconds=100)
_MISSING: Final = timedelta(milliseconds=200)
_LOOKS: Final = 4
# How soon a directory that was absent or replaced is noticed, which no event tells.
_PULSE: Final = timedelta(milliseconds=500)
# Network file systems tell of nothing at all: look anew every so many pulses.
_PULSES_A_LOOK: Final = 20
_GROUPING_MS: Final = 200
_STEP_MS: Final = 50

_log = log.get("preset.directory")


class DirectoryOptions(Settings):
    """The options of a source with the driver `directory`."""

    path: Annotated[Path, AfterValidator(Path.expanduser)]
    """The directory; relative to the configuration file."""
    polling: bool = False
    """Look every 300 ms instead of asking the kernel for events."""


@dataclass(frozen=True)
class _Look:
    """What a directory listing shows: a signature for each file, None where there is no reading."""

    files: Mapping[str, beneath.Signature | None] = field(default_factory=dict)


class DirectoryDriver:
    """A directory of preset files."""

    Options: ClassVar[type[Settings]] = DirectoryOptions
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.NOTICES_CHANGES})

    def __init__(self, directory: Path, *, clock: Clock, polling: bool = False) -> None:
        self._directory = directory
        self._clock = clock
        self._polling = polling
        self._known = _Look()
        self._contents: dict[str, beneath.Content] = {}
        self._fetched: dict[Reference, beneath.Signature | None] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: Mapping[str, Any], *, place: Place
    ) -> AsyncIterator[DirectoryDriver]:
        """The driver; the directory may be absent at present."""
        parsed = settings.parse(options, DirectoryOptions, where=place.where)
        yield cls(place.base_dir / parsed.path, clock=place.clock, polling=parsed.polling)

    @property
    def location(self) -> str:
        """The directory's path."""
        return str(self._directory)

    async def read(self) -> Tree:
        """All preset files, each either settled or with its problem."""
        look, unsettled = await self._settled_look()
        files = await asyncio.to_thread(self._files, look, unsettled)
        self._known = look
        return Tree(revision=_revision(files), files=tuple(files))

    async def fetch(self, wanted: Sequence[Reference]) -> Sequence[bytes | Problem]:
        """The files that user data name; one that has changed is looked at twice as well."""
        found = await asyncio.to_thread(self._fetch, wanted)
        if any(_signature(each) != self._fetched.get(ref) for ref, each in found.items()):
            await self._clock.sleep(_SETTLING)
            again = await asyncio.to_thread(self._fetch, wanted)
            found = {ref: _steady(found[ref], each) for ref, each in again.items()}
        self._fetched = {ref: _signature(each) for ref, each in found.items()}
        return [each.data if isinstance(each := found[ref], beneath.Content) else each
                for ref in wanted]  # fmt: skip

    async def changes(self) -> AsyncGenerator[None, None]:
        """A sign after every change, after a new beginning, and every ten seconds in any case."""
        there = await self._identity()
        while True:
            if there is None:
                await self._clock.sleep(_PULSE)
            else:
                async with aclosing(self._while_same(there)) as signs:
                    async for _ in signs:
                        yield
            now = await self._identity()
            if now != there:
                there = now
                yield

    async def _while_same(self, identity: tuple[int, int]) -> AsyncGenerator[None, None]:
        pulses = 0
        try:
            async with aclosing(self._notices()) as notices:
                async for changed in notices:
                    if await self._identity() != identity:
                        return
                    # What changed before the watch began is noticed by its first pulse.
                    if changed or pulses % _PULSES_A_LOOK == 0:
                        yield
                    pulses += 1
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, WatchfilesRustInternalError) as e:
            if self._polling:
                await self._clock.sleep(_PULSE)
                return
            _log.warning("watch failed, polling instead", directory=self.location, error=str(e))
            self._polling = True

    async def _notices(self) -> AsyncGenerator[bool, None]:
        """True for a change, False for a pulse without one."""
        watching = awatch(
            self._directory,
            watch_filter=None,
            debounce=_GROUPING_MS,
            step=_STEP_MS,
            rust_timeout=int(_PULSE / timedelta(milliseconds=1)),
            yield_on_timeout=True,
            force_polling=self._polling,
            ignore_permission_denied=True,
        )
        async with aclosing(watching):
            async for changes in watching:
                yield bool(changes)

    async def _identity(self) -> tuple[int, int] | None:
        try:
            status = await asyncio.to_thread(self._directory.stat)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def _settled_look(self) -> tuple[_Look, frozenset[str]]:
        """A look that held for a moment, and the names of files that would not hold still."""
        look = before = await asyncio.to_thread(self._look)
        for _ in range(_LOOKS):
            if look == self._known:
                return look, frozenset()
            is_missing = bool(set(self._known.files) - set(look.files))
            await self._clock.sleep(_MISSING if is_missing else _SETTLING)
            before, look = look, await asyncio.to_thread(self._look)
            if look == before:
                return look, frozenset()
        differing = set(before.files.items()) ^ set(look.files.items())
        return look, frozenset(name for name, _ in differing)

    def _look(self) -> _Look:
        try:
            names = sorted(filter(_is_preset_file, os.listdir(self._directory)))  # noqa: PTH208
            return _Look({name: self._glance(name) for name in names})
        except OSError as e:
            raise Unavailable(
                f"{self.location} cannot be read: {e.strerror or e}", reason="SOURCE_UNREADABLE"
            ) from e

    def _glance(self, name: str) -> beneath.Signature | None:
        try:
            return beneath.signature((self._directory / name).stat())
        except OSError:
            return None

    def _files(self, look: _Look, unsettled: frozenset[str]) -> list[File]:
        names = sorted({*look.files, *unsettled})
        self._contents = {name: self._contents[name] for name in names if name in self._contents}
        return [
            File(
                path=_shown(name),
                content=Problem("is being written: it is read once it holds still")
                if name in unsettled
                else self._content(name, look.files[name]),
            )
            for name in names
        ]

    def _content(self, name: str, seen: beneath.Signature | None) -> bytes | Problem:
        known = self._contents.get(name)
        if known is not None and known.signature == seen:
            return known.data
        try:
            content = beneath.read(self._directory, name, limit=MAX_TEXT_BYTES)
        except beneath.Refusal as e:
            return Problem(str(e))
        self._contents[name] = content
        return content.data

    def _fetch(self, wanted: Sequence[Reference]) -> dict[Reference, beneath.Content | Problem]:
        return {reference: self._fetch_one(reference) for reference in wanted}

    def _fetch_one(self, reference: Reference) -> beneath.Content | Problem:
        try:
            beside = self._directory / PurePosixPath(reference.file).parent
            root = beneath.inner_root(self._directory, str(beside / reference.root))
            content = beneath.read(root, reference.path, limit=MAX_USER_DATA_BYTES)
        except beneath.Refusal as e:
            return Problem(str(e))
        if not content.data:
            return Problem(f"{reference.path!r} is empty, or being written")
        return content


def _steady(
    before: beneath.Content | Problem, now: beneath.Content | Problem
) -> beneath.Content | Problem:
    if _signature(before) == _signature(now):
        return now
    return Problem("the file of the user data is being written")


def _signature(found: beneath.Content | Problem) -> beneath.Signature | None:
    return found.signature if isinstance(found, beneath.Content) else None


def _is_preset_file(name: str) -> bool:
    is_leftover = name.startswith((".", "#")) or name.endswith(("~", ".swp", "#"))
    return name.endswith(_SUFFIXES) and not is_leftover


def _shown(name: str) -> str:
    """A name that is not UTF-8 could not be sent."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _revision(files: Sequence[File]) -> str:
    """A hash of the files' names and bytes; a file with a problem stands for its name only."""
    total = hashlib.sha256()
    for file in files:
        content = file.content if isinstance(file.content, bytes) else b""
        total.update(file.path.encode() + b"\0")
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()[:16]
