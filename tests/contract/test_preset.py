"""The sources of the suite, each run through the contract of sources."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from preset_service.drivers.directory import DirectoryDriver
from preset_service.port import Place, PresetSource
from preset_service.testing import PresetSourceContract, Site
from vmshepherd_kit.clock import SystemClock


class Directory:
    """A directory of files."""

    def __init__(self, base: Path, *, polling: bool) -> None:
        self._base = base
        self._polling = polling
        self._directory = base / "presets.d"
        self._directory.mkdir()

    def open(self) -> AbstractAsyncContextManager[PresetSource]:
        place = Place(
            name="tested",
            where="options",
            base_dir=self._base,
            state_dir=self._base / "state",
            clock=SystemClock(),
        )
        options = {"path": "presets.d", "polling": self._polling}
        return DirectoryDriver.open(options, place=place)

    async def put(self, files: Mapping[str, str | None]) -> None:
        for name, text in files.items():
            path = self._directory / name
            if text is None:
                path.unlink()
            else:
                path.write_text(text)

    async def cut(self) -> None:
        self._directory.rename(self._base / "elsewhere")

    async def mend(self) -> None:
        (self._base / "elsewhere").rename(self._directory)


class TestDirectory(PresetSourceContract):
    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        return Directory(tmp_path, polling=False)


class TestPolledDirectory(PresetSourceContract):
    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        return Directory(tmp_path, polling=True)
