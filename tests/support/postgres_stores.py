"""What tests of the PostgreSQL driver on a real server begin with: stores, and a look past them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg

from runtime_service.domain import Acquired, Held, LockWish, NewSession, SessionId
from runtime_service.drivers.postgres import PostgresOptions, PostgresRuntime
from tests.support import postgres
from vmshepherd_kit import settings
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.config_file import Suite

# Generous: machines are shared and slow at times.
_PATIENCE_SECONDS: Final = 30

# A commit of what concerns `slow` waits for whoever holds the lock 42.
_SLOW: Final = """
    CREATE FUNCTION {schema}.wait() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(42);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON {schema}.sessions
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (NEW.owner = 'slow') EXECUTE FUNCTION {schema}.wait();
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {schema}.events
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (NEW.kind = 'slow') EXECUTE FUNCTION {schema}.wait();
"""
_WAITING: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


def opened(
    options: dict[str, Any], folder: Path, **more: Any
) -> AbstractAsyncContextManager[PostgresRuntime]:
    """A store, within the block."""
    suite = Suite(suite_id="test", state_dir=folder, base_dir=folder, embedded=False)
    parsed = settings.parse({**options, **more}, PostgresOptions)
    return PostgresRuntime.open(parsed, suite=suite, clock=SystemClock())


async def session(
    store: PostgresRuntime, owner: str, ttl: timedelta = timedelta(minutes=1)
) -> SessionId:
    """A new session."""
    new = NewSession(session_id=SessionId(f"session of {owner}"), owner=owner, ttl=ttl)
    return (await store.open_session(new)).session_id


async def granted(
    store: PostgresRuntime, asker: SessionId, name: str, *, floor: int = 0
) -> Acquired | Held:
    """What becomes of one wish."""
    [grant] = await store.try_lock(asker, [LockWish(name, floor)])
    return grant


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not await is_so():  # noqa: ASYNC110  (who is asked tells nobody)
            await asyncio.sleep(0.01)


@dataclass
class Direct:
    """A connection of the test to the database of a store."""

    db: asyncpg.Connection[asyncpg.Record]
    schema: str

    async def run(self, statement: str, *values: Any) -> Any:
        """The first field that a statement answers."""
        return await self.db.fetchval(statement.replace("{schema}", self.schema), *values)

    async def slow_down(self) -> None:
        """Let the commits of what is slow wait."""
        await self.db.execute(_SLOW.replace("{schema}", self.schema))
        await self.run("SELECT pg_advisory_lock(42)")

    async def let_go(self) -> None:
        """Let them come."""
        await self.run("SELECT pg_advisory_unlock(42)")

    async def until_waiting(self, backends: int) -> None:
        """Wait until so many statements wait for a lock."""
        await until(lambda: self._is_waiting(backends))

    async def _is_waiting(self, backends: int) -> bool:
        # Within a transaction the first look would stay the last.
        await self.run("SELECT pg_stat_clear_snapshot()")
        return bool(await self.run(_WAITING) >= backends)


@asynccontextmanager
async def direct_to(options: dict[str, Any]) -> AsyncIterator[Direct]:
    """A connection to the same database, past the store."""
    db = await asyncpg.connect(
        host=options["host"],
        port=options["port"],
        database=options["database"],
        user=postgres.USER,
        password=postgres.PASSWORD,
    )
    try:
        yield Direct(db, options["schema"])
    finally:
        await db.close()
