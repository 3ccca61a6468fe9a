"""The last good presets on disk: a file that breaks while the service is down costs nothing.

`shelf` saves after changes and loads once, at its start.  The file holds user data, which may be
secret: only its owner can read it.  It is replaced as a whole or not at all; one that cannot be
read is as good as none, for the sources are read anyway.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from preset_service.domain import Preset
from vmshepherd_kit import log

_log = log.get("preset.last_good")


@dataclass(frozen=True, kw_only=True)
class _Page:
    presets: tuple[Preset, ...]
    version: Literal[1] = 1


_PAGE: Final = TypeAdapter(_Page)


class LastGood:
    """One file of presets."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> tuple[Preset, ...]:
        """What was saved last; nothing when there is no such file or it is damaged."""
        return await asyncio.to_thread(self._load)

    async def save(self, presets: Iterable[Preset]) -> None:
        """Replace the file; OSError when that fails, and then the former one is still there."""
        good = tuple(preset for preset in presets if preset.spec is not None)
        await asyncio.to_thread(self._replace, _Page(presets=good))

    def _load(self) -> tuple[Preset, ...]:
        try:
            return _PAGE.validate_json(self._path.read_bytes()).presets
        except FileNotFoundError:
            return ()
        except OSError as e:
            _log.warning("last good presets unreadable", path=str(self._path), error=str(e))
        except ValidationError as e:
            # The error itself would show values, and values may be secret.
            errors = e.error_count()
            _log.warning("last good presets damaged", path=str(self._path), errors=errors)
        return ()

    def _replace(self, page: _Page) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = _PAGE.dump_json(page)
        # Made with mode 0600.
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._sync_directory()

    def _sync_directory(self) -> None:
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
