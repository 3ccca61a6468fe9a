"""The directory driver: what counts as a preset file, as a change, and as a fault."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest
from watchfiles import awatch

from preset_service.drivers.directory import DirectoryDriver
from preset_service.port import Place, Problem, Reference, Tree
from vmshepherd_kit import settings
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.errors import Unavailable
from vmshepherd_kit.testing import FakeClock

# Less than the ten seconds after which the driver looks in any case.
PATIENCE_SECONDS = 8


class ActingClock(SystemClock):
    """A clock whose sleeps take no time; an accident may happen in each of them."""

    def __init__(self) -> None:
        self.acts: list[Callable[[], object]] = []
        self.slept: list[timedelta] = []

    async def sleep(self, duration: timedelta) -> None:
        self.slept.append(duration)
        if self.acts:
            self.acts.pop(0)()


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    path = tmp_path / "presets.d"
    path.mkdir()
    return path


@pytest.fixture
def absent(tmp_path: Path) -> Path:
    return tmp_path / "absent.d"


@pytest.fixture
def clock() -> ActingClock:
    return ActingClock()


@pytest.fixture
def driver(presets: Path, clock: ActingClock) -> DirectoryDriver:
    return DirectoryDriver(presets, clock=clock)


def contents(tree: Tree) -> dict[str, bytes | Problem]:
    return {file.path: file.content for file in tree.files}


async def names(driver: DirectoryDriver) -> list[str]:
    return list(contents(await driver.read()))


async def test_leftovers_of_editors_are_no_presets(presets: Path, driver: DirectoryDriver) -> None:
    for name in ("a.conf", "b.yaml", "c.yml", ".d.yaml", "e.yaml~", "#f.yaml#", ".g.yaml.swp",
                 "h.yaml.swp", "i.txt", "4913", ".#j.yaml", "#k.yaml"):  # fmt: skip
        (presets / name).write_text("x")
    (presets / "inner").mkdir()
    (presets / "inner" / "l.yaml").write_text("x")
    assert await names(driver) == ["a.conf", "b.yaml", "c.yml"]


async def test_what_is_no_regular_file_is_a_problem_and_no_hindrance(
    presets: Path, driver: DirectoryDriver
) -> None:
    os.mkfifo(presets / "fifo.yaml")
    (presets / "directory.yaml").mkdir()
    (presets / "dangling.yaml").symlink_to("nowhere")
    (presets / "out.yaml").symlink_to("/etc/hostname")
    with (presets / "large.yaml").open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    (presets / "good.yaml").write_text("count: 1")
    found = contents(await driver.read())
    assert found.pop("good.yaml") == b"count: 1"
    assert len(found) == 5
    assert all(isinstance(content, Problem) for content in found.values())


async def test_a_mounted_volume_made_of_links_is_read(
    presets: Path, driver: DirectoryDriver
) -> None:
    (presets / "..1").mkdir()
    (presets / "..1" / "web.yaml").write_text("count: 1")
    (presets / "..data").symlink_to("..1")
    (presets / "web.yaml").symlink_to("..data/web.yaml")
    assert contents(await driver.read()) == {"web.yaml": b"count: 1"}


async def test_a_name_that_is_no_text_can_still_be_shown(
    presets: Path, driver: DirectoryDriver
) -> None:
    (presets / os.fsdecode(b"\xff.yaml")).write_text("count: 1")
    [name] = await names(driver)
    assert name.encode().decode() == "\\xff.yaml"


async def test_a_file_that_is_being_written_is_awaited(
    presets: Path, driver: DirectoryDriver, clock: ActingClock
) -> None:
    file = presets / "web.yaml"
    file.write_text("count: 1")
    clock.acts = [lambda: file.write_text("count: 10"), lambda: file.write_text("count: 1000")]
    assert contents(await driver.read()) == {"web.yaml": b"count: 1000"}


async def test_a_file_that_never_holds_still_is_a_problem_and_no_removal(
    presets: Path, driver: DirectoryDriver, clock: ActingClock
) -> None:
    file = presets / "web.yaml"
    file.write_text("count: 1")
    (presets / "calm.yaml").write_text("count: 2")
    clock.acts = [lambda: file.write_text(file.read_text() + "0")] * 100
    found = contents(await driver.read())
    assert found["calm.yaml"] == b"count: 2"
    assert isinstance(found["web.yaml"], Problem)


async def test_an_editors_swap_is_no_removal(
    presets: Path, driver: DirectoryDriver, clock: ActingClock
) -> None:
    file = presets / "web.yaml"
    file.write_text("count: 1")
    await driver.read()
    file.rename(presets / "web.yaml~")
    clock.acts = [lambda: file.write_text("count: 2")]
    assert contents(await driver.read()) == {"web.yaml": b"count: 2"}


async def test_a_missing_file_is_looked_for_a_second_time(
    presets: Path, driver: DirectoryDriver, clock: ActingClock
) -> None:
    file = presets / "web.yaml"
    file.write_text("count: 1")
    await driver.read()
    clock.slept.clear()
    file.unlink()
    assert await names(driver) == []
    assert clock.slept == [timedelta(milliseconds=200)]


async def test_nothing_new_is_found_out_without_waiting(
    presets: Path, driver: DirectoryDriver, clock: ActingClock
) -> None:
    (presets / "web.yaml").write_text("count: 1")
    await driver.read()
    clock.slept.clear()
    await driver.read()
    assert clock.slept == []


async def test_a_directory_that_is_not_there_is_no_empty_one(absent: Path) -> None:
    with pytest.raises(Unavailable, match=str(absent)):
        await DirectoryDriver(absent, clock=FakeClock()).read()


async def test_user_data_that_change_are_looked_at_twice(
    presets: Path, driver: DirectoryDriver, clock: ActingClock
) -> None:
    script = presets / "boot.sh"
    script.write_text("half")
    wanted = [Reference(file="web.yaml", root="", path="boot.sh")]
    clock.acts = [lambda: script.write_text("whole")]
    [first] = await driver.fetch(wanted)
    assert isinstance(first, Problem)
    assert await driver.fetch(wanted) == [b"whole"]


async def test_empty_user_data_are_a_problem(presets: Path, driver: DirectoryDriver) -> None:
    (presets / "boot.sh").touch()
    [found] = await driver.fetch([Reference(file="web.yaml", root="", path="boot.sh")])
    assert isinstance(found, Problem)


async def test_a_root_of_user_data_stays_in_the_directory(
    presets: Path, driver: DirectoryDriver
) -> None:
    (presets / "scripts").mkdir()
    (presets / "scripts" / "boot.sh").write_text("echo")
    (presets.parent / "boot.sh").write_text("secret")

    async def fetched(root: str) -> bytes | Problem:
        [found] = await driver.fetch([Reference(file="web.yaml", root=root, path="boot.sh")])
        return found

    assert await fetched("scripts") == b"echo"
    assert await fetched(str(presets / "scripts")) == b"echo"
    for root in ("..", str(presets.parent), "/", "scripts/../.."):
        assert isinstance(await fetched(root), Problem)


async def test_an_unknown_option_is_refused_with_its_path(tmp_path: Path) -> None:
    place = Place(
        name="s",
        where="preset.sources.0.options",
        base_dir=tmp_path,
        state_dir=tmp_path,
        clock=FakeClock(),
    )
    with pytest.raises(settings.Invalid, match=r"preset\.sources\.0\.options\.pth.*'path'"):
        async with DirectoryDriver.open({"pth": "x"}, place=place):
            pass


async def sign_after(driver: DirectoryDriver, act: Callable[[], object]) -> None:
    """Fails unless a sign follows the act."""
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(driver.changes()) as signs:
        await anext(signs)
        act()
        await anext(signs)


@pytest.mark.parametrize("polling", [False, True])
async def test_changes_of_presets_and_of_files_beneath_are_noticed(
    presets: Path, *, polling: bool
) -> None:
    (presets / "inner").mkdir()
    driver = DirectoryDriver(presets, clock=SystemClock(), polling=polling)
    await sign_after(driver, lambda: (presets / "web.yaml").write_text("count: 1"))
    await sign_after(driver, lambda: (presets / "inner" / "boot.sh").write_text("echo"))
    await sign_after(driver, (presets / "web.yaml").unlink)


async def test_a_directory_that_is_replaced_is_followed(presets: Path) -> None:
    driver = DirectoryDriver(presets, clock=SystemClock())

    def replace() -> None:
        presets.rename(presets.parent / "old")
        presets.mkdir()

    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(driver.changes()) as signs:
        await anext(signs)
        replace()
        await anext(signs)
        # The new directory's watch has begun.
        await anext(signs)
        (presets / "web.yaml").write_text("count: 1")
        await anext(signs)


async def test_a_directory_that_appears_is_noticed(absent: Path, clock: ActingClock) -> None:
    driver = DirectoryDriver(absent, clock=clock)
    clock.acts = [lambda: None, absent.mkdir]
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(driver.changes()) as signs:
        await anext(signs)
    assert clock.acts == []


async def test_exhausted_watches_are_replaced_by_polling(
    presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def exhausted(*paths: Path, force_polling: bool, **options: object) -> object:
        asked.append(force_polling)
        if not force_polling:
            raise OSError(28, "OS file watch limit reached")
        return awatch(*paths, force_polling=True, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("preset_service.drivers.directory.awatch", exhausted)
    driver = DirectoryDriver(presets, clock=SystemClock())
    await sign_after(driver, lambda: (presets / "web.yaml").write_text("count: 1"))
    assert asked == [False, True]
