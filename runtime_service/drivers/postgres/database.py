"""Connections to the database, and the limits within which each call ends.

Hosts are tried in order, the last good one first; only one that takes writes is used.  A call that
has begun ends by itself, whoever waits for it is gone or not; when its time is up the connection
is dropped, never cancelled: a commit that waits for a standby would be let through unconfirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from vmshepherd_kit.errors import Refused
from vmshepherd_kit.tasks import hear

from . import failures, schema
from .options import PostgresOptions

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

KNOWN: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    Refused,
)
"""What may come of asking a database; `failures` knows what it means."""

_TRIES: Final = 3
# What a server needs to say that its own limit was reached.
_ALLOWANCE: Final = timedelta(seconds=1)
_FAREWELL_SECONDS: Final = 2.0


async def _left_as_it_is(_connection: object) -> None:
    """Each statement leaves nothing behind that a connection would have to be cleared of."""


@contextmanager
def _dropped_on_failure(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.terminate()
        raise


class Database:
    """One database, on one or several hosts."""

    def __init__(self, options: PostgresOptions, base_dir: Path) -> None:
        self._options = options
        self._base_dir = base_dir
        self._addresses = list(options.addresses)
        self._running: set[asyncio.Task[Any]] = set()
        self._pool: Pool
        hosts = ", ".join(f"{host}:{port}" for host, port in self._addresses)
        self.where = f"{hosts}/{options.database}"
        self.schema = options.db_schema

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connections are made when they are needed; behind the block they are closed."""
        self._pool = await asyncpg.create_pool(
            min_size=0,
            max_size=self._options.pool_size,
            connect=self.connect,
            reset=_left_as_it_is,
        )
        try:
            yield
        finally:
            await asyncio.gather(*self._running, return_exceptions=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self._pool.close()
            self._pool.terminate()

    async def introduce(self) -> None:
        """Connect once, so that what will never work is known at the start.

        Refused when it is out of the question; a database that is away may come later.
        """
        try:
            connection = await self.connect()
        except KNOWN as e:
            meant = failures.understood(e, self.where)
            if meant is None:
                raise
            if isinstance(meant, Refused):
                raise meant from e
        else:
            connection.terminate()

    async def connect(self, *_: Any, **_pools_own: Any) -> Connection:
        """A connection to the first host that takes writes, its schema up to date.

        Raises one of KNOWN: the most telling of what the hosts said.
        """
        failed: list[BaseException] = []
        for address in tuple(self._addresses):
            try:
                connection = await self._connect_to(address)
            except KNOWN as e:
                failed.append(e)
            else:
                self._prefer(address)
                return connection
        raise next((e for e in failed if not isinstance(e, OSError)), failed[-1])

    async def fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """The rows that a statement answers, whole or not at all.

        Unavailable when it cannot be answered in time, SessionLost or QuotaExceeded where the
        answer says so.
        """
        running = asyncio.create_task(self._answer(statement, values))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        # Whoever asked may be gone, and its failure concerns nobody then.
        running.add_done_callback(hear)
        return await asyncio.shield(running)

    async def _answer(self, statement: str, values: tuple[Any, ...]) -> list[asyncpg.Record]:
        limit = self._options.statement_timeout + _ALLOWANCE
        try:
            async with asyncio.timeout(limit.total_seconds()):
                return await self._tried(statement, values)
        except KNOWN as e:
            if (meant := failures.at_run_time(e, self.where)) is None:
                raise
            raise meant from e

    async def _tried(self, statement: str, values: tuple[Any, ...]) -> list[asyncpg.Record]:
        for tries in range(1, _TRIES + 1):
            try:
                return await self._once(statement, values)
            except asyncpg.PostgresError as e:
                if tries == _TRIES or failures.state_of(e) not in failures.RETRIED:
                    raise
        raise AssertionError

    async def _once(self, statement: str, values: tuple[Any, ...]) -> list[asyncpg.Record]:
        connection = await self._pool.acquire()
        try:
            return await connection.fetch(statement, *values)
        except BaseException as e:
            if failures.is_of_connection(e):
                connection.terminate()
                await self._pool.expire_connections()
            raise
        finally:
            await self._pool.release(connection)

    async def _connect_to(self, address: tuple[str, int]) -> Connection:
        host, port = address
        options = self._options
        async with asyncio.timeout(options.connect_timeout.total_seconds()):
            connection = await asyncpg.connect(
                host=host,
                port=port,
                database=options.database,
                user=options.user,
                password=options.secret(self._base_dir),
                ssl=options.encryption(self._base_dir),
                target_session_attrs=SessionAttribute.read_write,
                server_settings={"application_name": "vmshepherd"},
            )
        with _dropped_on_failure(connection):
            await schema.prepare(connection, self.schema, options.statement_timeout)
        return connection

    def _prefer(self, address: tuple[str, int]) -> None:
        self._addresses.remove(address)
        self._addresses.insert(0, address)
