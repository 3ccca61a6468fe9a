# ruff: noqa: S101  (these are tests)
"""What every source of presets must do, ours and other people's; for authors of drivers.

Derive a test class from `PresetSourceContract`, with a fixture `site` that says how to open the
driver and how an author of presets works on what it reads.  The tests run the whole service around
the driver, but for gRPC.  Only tests import this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import pytest

from preset_service import book, library
from preset_service.book import Source
from preset_service.domain import Finding, Preset
from preset_service.last_good import LastGood
from preset_service.library import Library, Supplier
from preset_service.port import PresetSource, Trait
from preset_service.schema import Defaults
from preset_service.sync import Sync
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.errors import Unavailable

SOURCE: Final = "tested"
PATIENCE_SECONDS: Final = 20


class Site(Protocol):
    """What a driver reads, as its authors and its accidents change it."""

    def open(self) -> AbstractAsyncContextManager[PresetSource]:
        """The driver."""
        ...

    async def put(self, files: Mapping[str, str | None]) -> None:
        """Write these files, and remove those of None, in one step."""
        ...

    async def cut(self) -> None:
        """Put the source out of the driver's reach."""
        ...

    async def mend(self) -> None:
        """Bring it back as it was."""
        ...


class Desk:
    """The service around one driver."""

    def __init__(self, library_: Library) -> None:
        self._library = library_

    @property
    def sync(self) -> Sync:
        """What keeps the source in step."""
        return self._library.syncs[SOURCE]

    @property
    def presets(self) -> Mapping[str, Preset]:
        """All presets as they are known."""
        return self._library.shelf.book.presets

    @property
    def source(self) -> Source:
        """The source as it is known."""
        return self._library.shelf.book.sources[SOURCE]

    @property
    def findings(self) -> list[Finding]:
        """All that is wrong in the source."""
        return book.findings_of(self._library.shelf.book, SOURCE)

    def counts(self) -> dict[str, int | None]:
        """The count of each preset, None for one that was never good."""
        return {name: p.spec.count if p.spec else None for name, p in self.presets.items()}

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until a change has made it so."""
        feed = self._library.shelf.feed
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_so():
                await feed.beyond(feed.snapshot())


@asynccontextmanager
async def desk(
    source: PresetSource, state: Path, *, defaults: Defaults | None = None
) -> AsyncIterator[Desk]:
    """The service around a driver, with its last good presets in a file beneath `state`."""
    last_good = LastGood(state / "last_good.json")
    async with library.running(last_good, life="life", clock=SystemClock()) as running:
        supplier = Supplier(name=SOURCE, driver="tested", source=source)
        await running.stock([supplier], defaults or Defaults())
        yield Desk(running)


class PresetSourceContract:
    """The contract."""

    @pytest.fixture
    def site(self) -> Site:
        """To be overridden."""
        raise NotImplementedError

    @asynccontextmanager
    async def _desk(self, site: Site, state: Path) -> AsyncIterator[Desk]:
        async with site.open() as source, desk(source, state) as opened:
            yield opened

    async def test_every_preset_file_is_a_preset(self, site: Site, tmp_path: Path) -> None:
        """All three endings count, other files do not."""
        await site.put(
            {"a.conf": "count: 1", "b.yaml": "count: 2", "c.yml": "count: 3", "d.txt": "count: 4"}
        )
        async with self._desk(site, tmp_path) as desk:
            assert desk.counts() == {"a": 1, "b": 2, "c": 3}
            assert desk.source.synced_time is not None
            assert desk.source.revision

    async def test_a_broken_file_keeps_its_preset_and_says_where_it_is_broken(
        self, site: Site, tmp_path: Path
    ) -> None:
        """The fault stands at the preset and at the source, with file, line and key."""
        await site.put({"a.yaml": "image: x\ncount: 1", "b.yaml": "count: 2"})
        async with self._desk(site, tmp_path) as desk:
            await site.put({"a.yaml": "image: x\ncount: many"})
            await desk.sync.once()
            assert desk.counts() == {"a": 1, "b": 2}
            [finding] = desk.presets["a"].findings
            assert (finding.file, finding.line, finding.key) == ("a.yaml", 2, "count")
            assert desk.findings == [finding]
            assert not desk.presets["b"].findings

    async def test_a_mended_file_counts_again(self, site: Site, tmp_path: Path) -> None:
        """The fault goes with its cause."""
        await site.put({"a.yaml": "count: ["})
        async with self._desk(site, tmp_path) as desk:
            assert desk.counts() == {"a": None}
            await site.put({"a.yaml": "count: 7"})
            await desk.sync.once()
            assert desk.counts() == {"a": 7}
            assert not desk.findings

    async def test_an_emptied_file_is_a_fault_and_no_removal(
        self, site: Site, tmp_path: Path
    ) -> None:
        """Writers truncate before they write."""
        await site.put({"a.yaml": "count: 1"})
        async with self._desk(site, tmp_path) as desk:
            await site.put({"a.yaml": ""})
            await desk.sync.once()
            assert desk.counts() == {"a": 1}
            assert desk.presets["a"].findings

    async def test_only_a_file_that_is_gone_removes_its_preset(
        self, site: Site, tmp_path: Path
    ) -> None:
        """The others stay."""
        await site.put({"a.yaml": "count: 1", "b.yaml": "count: 2"})
        async with self._desk(site, tmp_path) as desk:
            await site.put({"a.yaml": None})
            await desk.sync.once()
            assert desk.counts() == {"b": 2}

    async def test_a_renamed_file_keeps_its_preset(self, site: Site, tmp_path: Path) -> None:
        """A preset is its name, not its file."""
        await site.put({"a.yaml": "name: web\ncount: 1"})
        async with self._desk(site, tmp_path) as desk:
            before = desk.presets["web"]
            await site.put({"a.yaml": None, "z.yaml": "name: web\ncount: 1"})
            await desk.sync.once()
            assert desk.presets["web"].file == "z.yaml"
            assert desk.presets["web"].changed_time == before.changed_time

    async def test_an_unreachable_source_keeps_its_presets_and_says_so(
        self, site: Site, tmp_path: Path
    ) -> None:
        """What cannot be seen is not gone."""
        await site.put({"a.yaml": "count: 1"})
        async with self._desk(site, tmp_path) as desk:
            await site.cut()
            with pytest.raises(Unavailable):
                await desk.sync.once()
            assert desk.counts() == {"a": 1}
            assert desk.source.error
            await site.mend()
            await desk.sync.once()
            assert desk.counts() == {"a": 1}
            assert not desk.source.error

    async def test_a_name_in_two_files_stays_with_whom_it_was(
        self, site: Site, tmp_path: Path
    ) -> None:
        """Both files are told."""
        await site.put({"z.yaml": "name: web\ncount: 1"})
        async with self._desk(site, tmp_path) as desk:
            await site.put({"a.yaml": "name: web\ncount: 9"})
            await desk.sync.once()
            assert desk.counts() == {"web": 1}
            assert {finding.file for finding in desk.findings} == {"a.yaml", "z.yaml"}

    async def test_the_same_files_are_the_same_revision(self, site: Site, tmp_path: Path) -> None:
        """Others are another one."""
        await site.put({"a.yaml": "count: 1"})
        async with self._desk(site, tmp_path) as desk:
            first = desk.source.revision
            await desk.sync.once()
            assert desk.source.revision == first
            await site.put({"a.yaml": "count: 2"})
            await desk.sync.once()
            assert desk.source.revision != first

    async def test_user_data_come_from_a_file_beside_the_preset(
        self, site: Site, tmp_path: Path
    ) -> None:
        """The path is relative to the preset's file."""
        await site.put({"a.yaml": "count: 1\nuserdata: file://boot.sh", "boot.sh": "echo"})
        async with self._desk(site, tmp_path) as desk:
            spec = desk.presets["a"].spec
            assert spec is not None
            assert spec.user_data == "echo"

    @pytest.mark.parametrize(
        "path", ["/etc/hostname", "../secret", "a/../../secret", "", ".", "/dev/zero"]
    )
    async def test_user_data_never_come_from_outside_of_the_source(
        self, site: Site, tmp_path: Path, path: str
    ) -> None:
        """Whoever writes presets must not read the host."""
        await site.put({"a.yaml": f"count: 1\nuserdata: 'file://{path}'", "b.yaml": "count: 2"})
        async with self._desk(site, tmp_path) as desk:
            assert desk.counts() == {"a": None, "b": 2}
            [finding] = desk.findings
            assert (finding.file, finding.line, finding.key) == ("a.yaml", 2, "userdata")

    async def test_changes_are_noticed_where_the_driver_promises_it(
        self, site: Site, tmp_path: Path
    ) -> None:
        """Other drivers notice them when they are asked to read."""
        await site.put({"a.yaml": "count: 1"})
        async with self._desk(site, tmp_path) as desk:
            await site.put({"a.yaml": "count: 2", "b.yaml": "count: 3"})
            async with site.open() as source:
                notices = Trait.NOTICES_CHANGES in source.traits
            if not notices:
                await desk.sync.once()
            await desk.until(lambda: desk.counts() == {"a": 2, "b": 3})
