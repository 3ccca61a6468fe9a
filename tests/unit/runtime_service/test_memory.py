"""The store that forgets: one process at a time has it, whatever else it promises is the port's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import pytest

from runtime_service.domain import LockWish, NewSession, SessionId
from runtime_service.drivers.memory import MemoryOptions, MemoryRuntime
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import Refused
from vmshepherd_kit.settings import duration

Open = Callable[[], AbstractAsyncContextManager[MemoryRuntime]]

# Says that it has the store, and keeps it until its input ends.
HOLDER = """
import asyncio, sys
from pathlib import Path

from runtime_service.drivers.memory import MemoryOptions, MemoryRuntime
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.config_file import Suite


async def main(where):
    suite = Suite(suite_id="test", state_dir=where, base_dir=where, embedded=False)
    async with MemoryRuntime.open(MemoryOptions(), suite=suite, clock=SystemClock()):
        print("mine", flush=True)
        sys.stdin.read()


asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


@pytest.fixture
def open_store(state_dir: Path) -> Open:
    suite = Suite(suite_id="test", state_dir=state_dir, base_dir=state_dir, embedded=False)
    return lambda: MemoryRuntime.open(MemoryOptions(), suite=suite, clock=SystemClock())


@contextmanager
def another_process(state_dir: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(state_dir)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "mine\n"
            yield holder
        finally:
            holder.kill()


async def test_a_second_process_is_refused_and_told_who_holds_the_store_and_what_to_do(
    open_store: Open, state_dir: Path
) -> None:
    with another_process(state_dir) as holder:
        words = (
            f"the memory store of {state_dir} is in use by process {holder.pid}: end it first, or "
            "set state_dir to another folder"
        )
        with pytest.raises(Refused) as refusal:
            async with open_store():
                pass
        assert (refusal.value.message, refusal.value.reason) == (words, "STORE_IN_USE")
        assert holder.poll() is None


async def test_the_store_of_a_process_that_was_killed_is_free(
    open_store: Open, state_dir: Path
) -> None:
    with another_process(state_dir) as holder:
        holder.kill()
        holder.wait()
        async with open_store() as store:
            new = NewSession(session_id=SessionId("one"), owner="one", ttl=duration("10s"))
            await store.open_session(new)
            assert await store.try_lock(SessionId("one"), [LockWish("web")])


async def test_a_store_that_was_closed_may_be_opened_again(open_store: Open) -> None:
    for _ in range(2):
        async with open_store():
            pass


async def test_suites_with_folders_of_their_own_do_not_hinder_each_other(
    open_store: Open, tmp_path: Path
) -> None:
    with another_process(tmp_path):
        async with open_store():
            pass


async def test_a_folder_that_cannot_be_made_is_named_with_the_way_out(
    open_store: Open, tmp_path: Path
) -> None:
    (tmp_path / "deep").write_text("a file in the way")
    with pytest.raises(Refused, match=r"let the user of this process own .* or set state_dir"):
        async with open_store():
            pass
