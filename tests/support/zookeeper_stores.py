"""Stores over an ensemble, and the few steps that most tests of them begin with."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runtime_service.domain import (
    Acquired,
    Event,
    FencingToken,
    Held,
    LockWish,
    NewSession,
    SessionId,
    StateWrite,
)
from runtime_service.drivers.zookeeper import ZookeeperOptions, ZookeeperRuntime
from vmshepherd_kit import settings
from vmshepherd_kit.clock import Clock, SystemClock
from vmshepherd_kit.config_file import Suite

TTL = timedelta(seconds=2)
# A machine that is busy with other things is late.
_PATIENCE = "20s"


def opened(
    servers: str,
    working_path: str,
    *,
    clock: Clock | None = None,
    base_dir: Path = Path(),
    **more: Any,
) -> AbstractAsyncContextManager[ZookeeperRuntime]:
    """A store that others may have open, too, and that has patience unless it is told otherwise."""
    raw = {"servers": servers, "working_path": working_path, "timeout": _PATIENCE, **more}
    options = settings.parse(raw, ZookeeperOptions)
    suite = Suite(suite_id="test", state_dir=base_dir, base_dir=base_dir, embedded=False)
    return ZookeeperRuntime.open(options, suite=suite, clock=clock or SystemClock())


async def session(
    store: ZookeeperRuntime,
    name: str = "s",
    *,
    ttl: timedelta = TTL,
    lock_delay: timedelta = timedelta(0),
) -> SessionId:
    """A new session, whose owner has its name."""
    new = NewSession(session_id=SessionId(name), owner=name, ttl=ttl, lock_delay=lock_delay)
    return (await store.open_session(new)).session_id


async def lock(store: ZookeeperRuntime, holder: SessionId, name: str = "a") -> FencingToken | None:
    """The token of a lock, None when another has it."""
    [grant] = await store.try_lock(holder, [LockWish(name)])
    assert isinstance(grant, Acquired | Held)
    return grant.fencing_token if isinstance(grant, Acquired) else None


def write(value: bytes, token: int | None, *, version: int = 0, name: str = "a") -> StateWrite:
    """A write."""
    assert token is not None
    return StateWrite(
        name=name, value=value, fencing_token=FencingToken(token), expected_version=version
    )


def event(name: str, message: str = "") -> Event:
    """An event."""
    return Event(event_id=name, time=datetime(2026, 1, 1, tzinfo=UTC), message=message)
