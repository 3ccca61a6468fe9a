"""Any order of steps: sessions, locks and guarded writes do what a model of twenty lines says."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, precondition, rule

from runtime_service.domain import (
    Acquired,
    FencingToken,
    Held,
    HeldLock,
    LockWish,
    NewSession,
    SessionId,
    StaleToken,
    StateWrite,
    VersionConflict,
    Written,
)
from runtime_service.drivers.memory import MemoryOptions, MemoryRuntime
from runtime_service.drivers.sqlite import SqliteOptions, SqliteRuntime
from runtime_service.port import RuntimeStore
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import SessionLost
from vmshepherd_kit.testing import FakeClock

T = TypeVar("T")

TTL = 10
NAMES = st.sampled_from(["a", "b", "c"])
SECONDS = st.integers(1, 12)


@dataclass
class Model:
    """What is expected, in seconds."""

    now: int = 0
    expires: dict[SessionId, int] = field(default_factory=dict)
    delays: dict[SessionId, int] = field(default_factory=dict)
    holders: dict[str, SessionId] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def is_live(self, session: SessionId) -> bool:
        return self.now < self.expires.get(session, 0)

    def holder(self, name: str) -> SessionId | None:
        session = self.holders.get(name)
        if session is None or session not in self.expires:
            return None
        return session if self.now < self.expires[session] + self.delays[session] else None


class AnyOrder(RuleBasedStateMachine):
    """The steps; a subclass says upon which store."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.clock = FakeClock()
        self.opened = AsyncExitStack()
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.store: RuntimeStore = self.run(self.opened.enter_async_context(self.open_store()))

    def suite(self) -> Suite:
        where = Path(self.directory.name)
        return Suite(suite_id="test", state_dir=where, base_dir=where, embedded=False)

    def open_store(self) -> AbstractAsyncContextManager[RuntimeStore]:
        raise NotImplementedError

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    def teardown(self) -> None:
        self.run(self.opened.aclose())
        self.runner.close()
        self.directory.cleanup()

    def is_lost(self, step: Coroutine[Any, Any, Any]) -> bool:
        try:
            self.run(step)
        except SessionLost:
            return True
        return False

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: int) -> None:
        self.run(self.clock.advance(timedelta(seconds=seconds)))
        self.model.now += seconds

    @rule(target=sessions, delay=st.integers(0, 15))
    def open_session(self, delay: int) -> SessionId:
        session = SessionId(f"session-{len(self.model.delays)}")
        new = NewSession(
            session_id=session,
            owner=session,
            ttl=timedelta(seconds=TTL),
            lock_delay=timedelta(seconds=delay),
        )
        self.run(self.store.open_session(new))
        self.model.expires[session] = self.model.now + TTL
        self.model.delays[session] = delay
        return session

    @rule(session=sessions)
    def refresh(self, session: SessionId) -> None:
        assert self.is_lost(self.store.refresh_session(session)) != self.model.is_live(session)
        if self.model.is_live(session):
            self.model.expires[session] = self.model.now + TTL

    @rule(session=sessions)
    def close(self, session: SessionId) -> None:
        was_live = self.model.is_live(session)
        assert self.run(self.store.close_session(session)) == was_live
        if was_live:
            del self.model.expires[session]

    @rule(session=sessions, name=NAMES, ahead=st.integers(-2, 2))
    def try_lock(self, session: SessionId, name: str, ahead: int) -> None:
        floor = max(self.model.tokens.get(name, 0) + ahead, 0)
        asked = self.store.try_lock(session, [LockWish(name, floor)])
        if not self.model.is_live(session):
            assert self.is_lost(asked)
            return
        holder, newest = self.model.holder(name), self.model.tokens.get(name, 0)
        [grant] = self.run(asked)
        if holder not in {None, session}:
            assert isinstance(grant, Held)
            assert grant.owner == holder
            return
        assert isinstance(grant, Acquired)
        if holder == session and newest > floor:
            assert grant.fencing_token == newest
        else:
            assert grant.fencing_token > max(newest, floor)
        self.model.holders[name] = session
        self.model.tokens[name] = grant.fencing_token

    @precondition(lambda self: self.model.tokens)
    @rule(session=sessions, name=NAMES, behind=st.integers(0, 1))
    def unlock(self, session: SessionId, name: str, behind: int) -> None:
        newest = self.model.tokens.get(name, 5)
        lock = HeldLock(name, FencingToken(newest - behind))
        held = self.model.is_live(session) and self.model.holder(name) == session
        assert self.run(self.store.unlock(session, [lock])) == [held and not behind]
        if held and not behind:
            del self.model.holders[name]

    @precondition(lambda self: self.model.tokens)
    @rule(session=sessions, name=NAMES, behind=st.integers(0, 1), off=st.integers(0, 1))
    def write(self, session: SessionId, name: str, behind: int, off: int) -> None:
        newest, version = self.model.tokens.get(name, 5), self.model.versions.get(name, 0)
        write = StateWrite(
            name=name,
            value=b"",
            fencing_token=FencingToken(newest - behind),
            expected_version=version + off,
        )
        asked = self.store.put_states(session, [write])
        if not self.model.is_live(session):
            assert self.is_lost(asked)
            return
        [outcome] = self.run(asked)
        if behind or self.model.holder(name) != session:
            assert isinstance(outcome, StaleToken)
        elif off:
            assert outcome == VersionConflict(version)
        else:
            assert outcome == Written(version + 1)
            self.model.versions[name] = version + 1


class AnyOrderInMemory(AnyOrder):
    def open_store(self) -> AbstractAsyncContextManager[RuntimeStore]:
        return MemoryRuntime.open(MemoryOptions(), suite=self.suite(), clock=self.clock)


class AnyOrderInSqlite(AnyOrder):
    def open_store(self) -> AbstractAsyncContextManager[RuntimeStore]:
        return SqliteRuntime.open(SqliteOptions(), suite=self.suite(), clock=self.clock)

    @rule()
    def restart(self) -> None:
        self.run(self.opened.aclose())
        self.store = self.run(self.opened.enter_async_context(self.open_store()))


TestInMemory = AnyOrderInMemory.TestCase
TestInMemory.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestInSqlite = AnyOrderInSqlite.TestCase
TestInSqlite.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
