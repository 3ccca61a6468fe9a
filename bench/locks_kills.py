"""kill -9 of a runtime_service upon SQLite in the middle of its transactions, again and again.

After each kill the file is opened and asked what has survived; see bench/locks_survival.  Each life
is forked from a process that has all modules loaded, so that a thousand of them take minutes; it
runs as any other runtime_service does.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml

import runtime_service.server
from bench.locks_services import await_listening
from bench.locks_survival import Answered, Found, event_ids, unanswered, value_of, wrong
from runtime_service.config import Config
from runtime_service.domain import EventQuery
from runtime_service.drivers.sqlite import SqliteOptions, SqliteRuntime
from tests.support.postgres import free_port
from vmshepherd.runtime.v1 import event_pb2
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, entry, stamps
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import ShepherdError

_NAMES: Final = tuple(f"preset/{number}" for number in range(8))
_MAX_EVENTS: Final = 2000
_LONGEST_LIFE: Final = 40
"""In answers."""
_LONGEST_COMMIT: Final = 0.02

_PROCESSES: Final = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["bench.locks_kills"])


@dataclass(slots=True)
class Toll:
    """What came of it; `wrong` must stay empty."""

    kills: int = 0
    answers: int = 0
    kills_in_mid_answer: int = 0
    """Those after which something was found that nobody had been told of yet."""
    wrong: list[str] = field(default_factory=list)


async def kills(count: int, *, seed: str) -> Toll:
    """So many lives, each ended by force."""
    dice = random.Random(f"{seed}/kills")  # noqa: S311  it must replay
    with tempfile.TemporaryDirectory(prefix="vmshepherd-kills-") as folder:
        victim = _Victim(Path(folder))
        for number in range(count):
            await victim.live(
                f"life-{number}",
                answers=dice.randint(1, _LONGEST_LIFE),
                then=dice.uniform(0, _LONGEST_COMMIT),
            )
            if not await victim.is_well():
                break
    return victim.toll


class _Victim:
    """A file, whoever serves it at the moment, and what they answered."""

    def __init__(self, folder: Path) -> None:
        self.toll = Toll()
        self._folder = folder
        self._file = folder / "runtime.sqlite"
        self._port = free_port()
        self._answered = Answered()
        self._newest = 0
        self._configuration = folder / "runtime.yaml"
        self._configuration.write_text(yaml.safe_dump(self._settings()))

    def _settings(self) -> dict[str, Any]:
        options = {"path": str(self._file), "max_events": _MAX_EVENTS}
        listen = {"address": f"127.0.0.1:{self._port}"}
        runtime = {"listen": listen, "driver": "sqlite", "options": options}
        return {"log": {"level": "error"}, "runtime": runtime}

    async def live(self, life: str, *, answers: int, then: float) -> None:
        """Begin, answer writers side by side so often, and be killed some time later, while they
        write on.
        """
        self._wanted, self._enough = answers, asyncio.Event()
        async with self._serving() as (process, stub):
            working = [self._enough.wait(), *(self._write(stub, name, life) for name in _NAMES)]
            tasks = [asyncio.ensure_future(work) for work in working]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Right after an answer, nothing but the next transaction's beginning would be hit.
            await asyncio.sleep(then)
            process.kill()
            self.toll.kills += 1
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for failure in ended:
            if isinstance(failure, Exception):
                raise failure

    def _count(self) -> None:
        self.toll.answers += 1
        self._wanted -= 1
        if self._wanted == 0:
            self._enough.set()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[tuple[Any, RuntimeServiceStub]]:
        process = _PROCESSES.Process(target=_serve, args=(self._configuration,), daemon=True)
        process.start()
        try:
            await asyncio.to_thread(await_listening, self._port, process.is_alive)
            async with dial.channel(f"127.0.0.1:{self._port}") as channel:
                yield process, RuntimeServiceStub(channel)
        finally:
            process.kill()
            process.join()

    async def _write(self, stub: RuntimeServiceStub, name: str, life: str) -> None:
        """Lock, write a state and a batch of events, unlock; again and again."""
        ttl = stamps.to_duration(timedelta(minutes=1))
        opened = await dial.ask(stub.OpenSession, pb.OpenSessionRequest(owner=life, ttl=ttl))
        session_id, turn = opened.session.session_id, 0
        while True:
            turn += 1
            token = await self._lock(stub, session_id, name)
            await self._put(stub, session_id, name, token)
            await self._append(stub, f"{life}/{name}/{turn}")
            lock = pb.HeldLock(name=name, fencing_token=token)
            await dial.ask(stub.Unlock, pb.UnlockRequest(session_id=session_id, locks=[lock]))
            self._count()

    async def _lock(self, stub: RuntimeServiceStub, session_id: str, name: str) -> int:
        request = pb.TryLockRequest(session_id=session_id, wishes=[pb.LockWish(name=name)])
        [result] = (await dial.ask(stub.TryLock, request)).results
        token = result.acquired.fencing_token
        if token <= self._answered.tokens.get(name, 0):
            self.toll.wrong.append(f"token {token} of {name} is not greater than all before")
        self._answered.tokens[name] = token
        self._count()
        return token

    async def _put(self, stub: RuntimeServiceStub, session_id: str, name: str, token: int) -> None:
        version = self._answered.versions.get(name, 0)
        write = pb.StateWrite(
            name=name,
            value=value_of(name, version + 1),
            fencing_token=token,
            expected_version=version,
        )
        request = pb.PutStatesRequest(session_id=session_id, writes=[write])
        [result] = (await dial.ask(stub.PutStates, request)).results
        if result.version != version + 1:
            self.toll.wrong.append(f"{name} cannot be written: {result.status.message}")
        self._answered.versions[name] = version + 1
        self._count()

    async def _append(self, stub: RuntimeServiceStub, batch: str) -> None:
        events = [event_pb2.Event(event_id=each) for each in event_ids(batch)]
        answer = await dial.ask(stub.AppendEvents, pb.AppendEventsRequest(events=events))
        self._answered.events |= zip(event_ids(batch), answer.sequences, strict=True)
        self._count()

    async def is_well(self) -> bool:
        """Open the file and ask what has survived; from then on, that is what was answered.

        False when it cannot be opened any more.
        """
        try:
            found = await self._found()
        except ShepherdError as e:
            self.toll.wrong.append(f"damaged: {e.message}")
            return False
        self.toll.wrong += wrong(self._answered, found)
        self.toll.kills_in_mid_answer += unanswered(self._answered, found) > 0
        self._answered = Answered(
            tokens={lock.name: lock.fencing_token for lock in found.locks},
            versions={state.name: state.version for state in found.states},
        )
        self._newest = max((each.sequence for each in found.events), default=self._newest)
        return True

    async def _found(self) -> Found:
        folder, options = self._folder, SqliteOptions(path=self._file, max_events=_MAX_EVENTS)
        # In a suite of one process, sessions of former lives are over: the next one finds no locks.
        suite = Suite(suite_id="kills", state_dir=folder, base_dir=folder, embedded=True)
        query = EventQuery(ascending=True, after=self._newest, limit=_MAX_EVENTS)
        async with SqliteRuntime.open(options, suite=suite, clock=SystemClock()) as store:
            states = await store.get_states(_NAMES)
            locks = await store.list_locks(after="", limit=len(_NAMES))
            events = await store.read_events(query)
        return Found(
            locks=locks.items,
            states=[state for state in states if state],
            events=events.events,
            integrity=_integrity(self._file),
        )


def _serve(configuration: Path) -> None:
    entry.run("runtime", Config, runtime_service.server.running, path=configuration)


def _integrity(file: Path) -> str:
    with closing(sqlite3.connect(file)) as db:
        return "; ".join(row[0] for row in db.execute("PRAGMA integrity_check"))
