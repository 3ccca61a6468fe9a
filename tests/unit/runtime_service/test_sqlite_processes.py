"""What only real processes show: who holds the file, and what is left of one that was killed."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from runtime_service.domain import EventQuery
from runtime_service.drivers.sqlite import SqliteOptions, SqliteRuntime
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import Refused

# Locks ten names, then writes states and events side by side, telling each answer as it comes.
WRITER = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runtime_service.domain import Event, LockWish, NewSession, SessionId, StateWrite
from runtime_service.drivers.sqlite import SqliteOptions, SqliteRuntime
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.config_file import Suite

path, life = Path(sys.argv[1]), sys.argv[2]
names = [f"preset/{i}" for i in range(10)]


def tell(*words):
    print(*words, flush=True)


async def write(store, session, name, token):
    [state] = await store.get_states([name])
    version = state.version if state else 0
    while True:
        write = StateWrite(
            name=name, value=bytes(2000), fencing_token=token, expected_version=version
        )
        [written] = await store.put_states(session, [write])
        version = written.version
        tell("state", name, version)
        event = Event(event_id=f"{life}/{name}/{version}", time=datetime.now(UTC))
        [sequence] = await store.append_events([event])
        tell("event", event.event_id, sequence)


async def main():
    suite = Suite(suite_id="test", state_dir=path.parent, base_dir=path.parent, embedded=True)
    options = SqliteOptions(path=path)
    async with SqliteRuntime.open(options, suite=suite, clock=SystemClock()) as store:
        session = SessionId(life)
        new = NewSession(session_id=session, owner=life, ttl=timedelta(minutes=1))
        await store.open_session(new)
        grants = await store.try_lock(session, [LockWish(name) for name in names])
        for name, grant in zip(names, grants):
            tell("token", name, grant.fencing_token)
        writers = [
            write(store, session, name, grant.fencing_token) for name, grant in zip(names, grants)
        ]
        await asyncio.gather(*writers)


asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runtime.sqlite"


@asynccontextmanager
async def living(path: Path, life: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), life, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def told(process: Process, lines: int) -> list[list[str]]:
    assert process.stdout
    read = [(await process.stdout.readline()).decode() for _ in range(lines)]
    return [line.split() for line in read if line.endswith("\n")]


async def told_before_death(process: Process) -> list[list[str]]:
    output, _ = await process.communicate()
    return [line.split() for line in output.decode().splitlines(keepends=True) if "\n" in line]


def opened(path: Path) -> AbstractAsyncContextManager[SqliteRuntime]:
    suite = Suite(suite_id="test", state_dir=path.parent, base_dir=path.parent, embedded=True)
    return SqliteRuntime.open(SqliteOptions(path=path), suite=suite, clock=SystemClock())


async def test_a_second_process_is_refused_and_told_who_holds_the_store(path: Path) -> None:
    async with living(path, "holder") as holder:
        await told(holder, 1)
        with pytest.raises(Refused, match=f"in use by process {holder.pid}: end it first"):
            async with opened(path):
                pass
        assert holder.returncode is None
        holder.kill()
        await holder.wait()
        async with opened(path) as store:
            assert (await store.list_locks(after="", limit=20)).items


async def test_what_was_answered_survives_kill_9_at_any_moment(path: Path) -> None:
    versions: dict[str, int] = {}
    events: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for number, lines in enumerate([10, 11, 12, 15, 20, 33, 50, 80, 130, 210]):
        async with living(path, f"life-{number}") as writer:
            answers = await told(writer, lines)
            writer.kill()
            answers += await told_before_death(writer)
        assert len(answers) >= lines
        for kind, key, count in answers:
            if kind == "state":
                versions[key] = int(count)
            elif kind == "event":
                events[key] = int(count)
            else:
                assert int(count) > tokens.get(key, 0)
                tokens[key] = int(count)
        async with opened(path) as store:
            states = await store.get_states(list(versions))
            stored = {state.name: state.version for state in states if state}
            # A write may be on the disk whose answer was never told.
            assert all(versions[name] <= stored[name] <= versions[name] + 1 for name in versions)
            page = await store.read_events(EventQuery(ascending=True, limit=100_000))
            assert events.items() <= {e.event.event_id: e.sequence for e in page.events}.items()
            versions |= stored
    assert len(events) > 100
    assert whole(path)


def whole(path: Path) -> bool:
    db = sqlite3.connect(path)
    try:
        return bool(db.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        db.close()
