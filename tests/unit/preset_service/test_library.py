"""Sources in step, and what happens when one of them is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from preset_service import library
from preset_service.domain import Preset
from preset_service.last_good import LastGood
from preset_service.library import Library, Supplier
from preset_service.port import File, Place, PresetSource, Problem, Reference, Trait, Tree
from preset_service.schema import Defaults
from vmshepherd_kit.errors import Refused, Unavailable
from vmshepherd_kit.testing import FakeClock


class Memory:
    """A source whose files stand in memory."""

    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.NOTICES_CHANGES})
    location = "memory"

    def __init__(self, **files: str) -> None:
        self.files = files
        self.fault: Exception | None = None
        self.reads = 0
        self._signs: asyncio.Queue[None] = asyncio.Queue()

    @classmethod
    def open(
        cls, options: Mapping[str, Any], *, place: Place
    ) -> AbstractAsyncContextManager[PresetSource]:
        raise NotImplementedError

    async def read(self) -> Tree:
        self.reads += 1
        if self.fault:
            raise self.fault
        files = [File(path=f"{n}.yaml", content=t.encode()) for n, t in self.files.items()]
        return Tree(revision=str(self.reads), files=tuple(files))

    async def fetch(self, wanted: Sequence[Reference]) -> Sequence[bytes | Problem]:
        raise NotImplementedError

    async def changes(self) -> AsyncGenerator[None, None]:
        while True:
            await self._signs.get()
            yield

    def change(self, **files: str) -> None:
        self.files = files
        self._signs.put_nowait(None)


@pytest.fixture
def last_good(tmp_path: Path) -> LastGood:
    return LastGood(tmp_path / "last_good.json")


@asynccontextmanager
async def opened(last_good: LastGood, **sources: Memory) -> AsyncGenerator[Library, None]:
    async with library.running(last_good, life="life", clock=FakeClock()) as running:
        await running.stock(suppliers(**sources), Defaults())
        yield running


def suppliers(**sources: Memory) -> list[Supplier]:
    return [Supplier(name=name, driver="memory", source=each) for name, each in sources.items()]


def counts(running: Library) -> dict[str, int | None]:
    presets = running.shelf.book.presets
    return {name: each.spec.count if each.spec else None for name, each in presets.items()}


async def news(running: Library) -> None:
    async with asyncio.timeout(20):
        await running.shelf.feed.beyond(running.shelf.feed.snapshot())


async def test_a_sign_leads_to_a_reading(last_good: LastGood) -> None:
    source = Memory(a="count: 1")
    async with opened(last_good, s=source) as running:
        source.change(a="count: 2")
        await news(running)
        assert counts(running) == {"a": 2}


async def test_a_file_broken_while_the_service_was_down_keeps_its_preset(
    last_good: LastGood,
) -> None:
    source = Memory(a="count: 1\nuserdata: x", b="count: 2")
    async with opened(last_good, s=source):
        pass
    source.files = {"a": "count: ["}
    async with opened(last_good, s=source) as running:
        assert counts(running) == {"a": 1}
        assert running.shelf.book.presets["a"].findings


async def test_a_source_unreachable_at_the_start_keeps_its_presets(last_good: LastGood) -> None:
    source = Memory(a="count: 1")
    async with opened(last_good, s=source):
        pass
    source.fault = Unavailable("gone")
    async with opened(last_good, s=source) as running:
        assert counts(running) == {"a": 1}
        assert not running.shelf.book.is_synced
        assert running.shelf.book.sources["s"].error == "gone"


async def test_a_change_is_saved_without_an_orderly_end(
    last_good: LastGood, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = last_good.save, asyncio.Event()

    async def save_and_tell(presets: Iterable[Preset]) -> None:
        await save(presets)
        saved.set()

    monkeypatch.setattr(last_good, "save", save_and_tell)
    async with opened(last_good, s=Memory(a="count: 1")):
        await asyncio.wait_for(saved.wait(), 20)
        assert [preset.name for preset in await last_good.load()] == ["a"]


async def test_a_full_disk_stops_nothing(
    last_good: LastGood, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(presets: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(last_good, "save", full)
    source = Memory(a="count: 1")
    async with opened(last_good, s=source) as running:
        source.change(a="count: 2")
        await news(running)
        source.change(a="count: 3")
        await news(running)
        assert counts(running) == {"a": 3}


async def test_other_sources_can_be_stocked_while_it_runs(last_good: LastGood) -> None:
    old, new = Memory(a="count: 1", b="count: 1"), Memory(a="count: 1", c="count: 3")
    async with opened(last_good, s=old) as running:
        await running.stock(suppliers(t=new), Defaults())
        assert counts(running) == {"a": 1, "c": 3}
        old.change(d="count: 4")
        new.change(a="count: 2", c="count: 3")
        await news(running)
        assert counts(running) == {"a": 2, "c": 3}
        assert old.reads == 1


async def fail_to_look(last_good: LastGood) -> None:
    source = Memory(a="count: 1")
    async with opened(last_good, s=source):
        source.fault = ZeroDivisionError()
        source.change(a="count: 2")
        await asyncio.get_running_loop().create_future()


async def test_a_fault_of_ours_ends_the_service_and_not_only_its_eyes(
    last_good: LastGood,
) -> None:
    with pytest.raises(ZeroDivisionError):
        await fail_to_look(last_good)


async def test_what_the_block_raises_leaves_as_it_was_raised(last_good: LastGood) -> None:
    with pytest.raises(Refused, match="port taken"):
        async with opened(last_good, s=Memory()):
            raise Refused("port taken")


async def test_a_save_that_failed_is_made_up_for(
    last_good: LastGood, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(presets: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(last_good, "save", full)
        async with opened(last_good, s=Memory(a="count: 1")):
            await asyncio.sleep(0)
            disk.undo()
    assert [preset.name for preset in await last_good.load()] == ["a"]


async def test_what_could_not_be_loaded_is_not_overwritten_without_a_change(
    tmp_path: Path,
) -> None:
    (tmp_path / "last_good.json").write_text("from the future")
    async with opened(LastGood(tmp_path / "last_good.json"), s=Memory()):
        pass
    assert (tmp_path / "last_good.json").read_text() == "from the future"
