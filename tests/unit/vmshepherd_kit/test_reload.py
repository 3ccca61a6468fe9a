"""A changed file takes force as a whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from vmshepherd_kit import config_file, reload, settings
from vmshepherd_kit.config_file import Configuration, Log
from vmshepherd_kit.errors import BadRequest, ShepherdError
from vmshepherd_kit.settings import Settings


class Interval(Settings):
    """A section."""

    interval: int = 1


class Taker:
    """A server that takes new settings, unless it is told to refuse."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[int] = asyncio.Queue()
        self.refused: asyncio.Queue[str] = asyncio.Queue()
        self.refuses = False
        self.refusal: ShepherdError = BadRequest("not now")

    async def reload(self, config: Interval) -> None:
        if self.refuses:
            raise self.refusal
        self.taken.put_nowait(config.interval)

    def configuration_refused(self, why: str) -> None:
        self.refused.put_nowait(why)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text("orchestrator: {interval: 1}\n")
    return path


@asynccontextmanager
async def followed(
    path: Path, *takers: tuple[str, Taker], fixed: tuple[str, ...] = ()
) -> AsyncIterator[list[Log]]:
    """The file is followed within the block; the logs that were set."""
    logs: list[Log] = []
    parts: dict[str, reload.Apply | None] = {
        section: reload.applied_by(taker, section, Interval) for section, taker in takers
    }
    parts |= dict.fromkeys(fixed)
    following = asyncio.create_task(
        reload.follow(
            config_file.read(path),
            parts,
            set_log=logs.append,
            refused=reload.told_to(takers[0][1]),
        )
    )
    # SIGHUP would end this process before somebody waits for it.
    while signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # noqa: ASYNC110  no event tells
        await asyncio.sleep(0)
    try:
        yield logs
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


async def test_a_changed_file_is_noticed_and_taken(path: Path) -> None:
    taker = Taker()
    async with followed(path, ("orchestrator", taker)):
        # A file system's event may come before the watch begins: the file changes until one came.
        for attempt in itertools.count():
            rewrite(path, f"orchestrator: {{interval: 7}} # {attempt}\n")
            with contextlib.suppress(TimeoutError):
                assert await asyncio.wait_for(taker.taken.get(), timeout=0.5) == 7
                break


async def test_a_signal_has_the_file_read_even_unchanged(path: Path) -> None:
    taker = Taker()
    async with followed(path, ("orchestrator", taker)):
        os.kill(os.getpid(), signal.SIGHUP)
        assert await taker.taken.get() == 1


def reread(path: Path, text: str) -> None:
    path.write_text(text)
    os.kill(os.getpid(), signal.SIGHUP)


async def is_refused(taker: Taker, *, because: str) -> None:
    """At last: what was refused at the signal may be refused again at the change of the file."""
    while because not in await taker.refused.get():
        pass


async def test_a_file_that_is_not_understood_changes_nothing_and_is_told(path: Path) -> None:
    taker = Taker()
    async with followed(path, ("orchestrator", taker)) as logs:
        reread(path, "orchestrator: {intervall: 7}\nlog: {level: debug}\n")
        assert "did you mean 'interval'?" in await taker.refused.get()
        assert taker.taken.empty()
        assert logs == []


async def test_what_needs_a_restart_refuses_the_whole_file(path: Path) -> None:
    taker = Taker()
    async with followed(path, ("orchestrator", taker), fixed=("iaas",)) as logs:
        reread(path, "orchestrator: {interval: 7}\niaas: {x: 1}\n")
        await is_refused(taker, because="iaas")
        reread(path, "orchestrator: {interval: 7}\nsuite_id: another\n")
        await is_refused(taker, because="suite_id")
        assert taker.taken.empty()
        assert logs == []


async def test_options_that_a_driver_refuses_are_told_with_their_line(path: Path) -> None:
    taker = Taker()
    taker.refuses = True
    taker.refusal = settings.Invalid([settings.Finding("orchestrator.interval", "too long")])
    async with followed(path, ("orchestrator", taker)):
        reread(path, "# a remark\norchestrator: {interval: 7}\n")
        assert await taker.refused.get() == f"{path}:2: orchestrator.interval: too long"


async def test_sections_of_other_processes_do_not_matter(path: Path) -> None:
    taker = Taker()
    async with followed(path, ("orchestrator", taker)):
        reread(path, "orchestrator: {interval: 7}\niaas: {x: 1}\n")
        assert await taker.taken.get() == 7


async def test_when_one_part_refuses_the_others_get_their_former_settings_back(path: Path) -> None:
    first, second = Taker(), Taker()
    second.refuses = True
    async with followed(path, ("health", first), ("orchestrator", second)):
        reread(path, "health: {interval: 5}\norchestrator: {interval: 7}\n")
        assert await first.refused.get() == "not now"
        assert [await first.taken.get(), await first.taken.get()] == [5, 1]


async def test_a_file_that_is_right_again_is_taken_though_nothing_differs_from_what_is_in_force(
    path: Path,
) -> None:
    taker = Taker()
    async with followed(path, ("orchestrator", taker)):
        reread(path, "orchestrator: [\n")
        await taker.refused.get()
        reread(path, "orchestrator: {interval: 1}\n")
        assert await taker.taken.get() == 1


async def test_the_log_follows_the_file(path: Path) -> None:
    taker = Taker()
    async with followed(path, ("orchestrator", taker)) as logs:
        reread(path, "log: {level: debug}\n")
        await taker.taken.get()
        await asyncio.sleep(0)
        assert logs[0].level == "debug"


async def test_without_a_file_there_is_nothing_to_follow() -> None:
    configuration: Configuration = config_file.defaults()
    await reload.follow(configuration, {}, set_log=lambda chosen: None, refused=lambda why: None)


def test_a_server_without_reload_needs_a_restart() -> None:
    assert reload.applied_by(object(), "iaas", Interval) is None
