"""What must be there before a database is used: a server that keeps what it confirms, and the
tables and functions of `migrations`.

Runs on every new connection, for a failover may lead to another server.  Migrations run forward,
each once, and never change what a version that still runs needs.  Every refusal says what to do.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from importlib import resources
from typing import Final

import asyncpg

from vmshepherd_kit.errors import Refused

MIGRATIONS: Final = tuple(
    file.read_text(encoding="utf-8")
    for file in sorted(resources.files(__package__).joinpath("migrations").iterdir(), key=str)
    if file.name.endswith(".sql")
)
"""One script a version of the schema."""

OLDEST_READER: Final = 1
"""The oldest version that can use what the newest migration leaves behind."""

_OLDEST_SERVER: Final = 12
_MIGRATION_SECONDS: Final = 300

# An isolation above `read committed` would hide from a statement what the one before waited for.
_GREETING: Final = """
    SELECT set_config('statement_timeout', $1, false),
        set_config('lock_timeout', $2, false),
        set_config('idle_in_transaction_session_timeout', $1, false),
        set_config('default_transaction_isolation', 'read committed', false),
        set_config('jit', 'off', false),
        set_config('synchronous_commit', CASE current_setting('synchronous_commit')
            WHEN 'off' THEN 'on' WHEN 'local' THEN 'on'
            ELSE current_setting('synchronous_commit') END, false),
        current_setting('fsync') AS fsync,
        current_setting('full_page_writes') AS full_page_writes,
        current_setting('server_encoding') AS encoding
"""
_REACHED: Final = """
    UPDATE {schema}.schema_version SET version = {version}, oldest_reader = {reader};
"""
_VERSION: Final = "SELECT version, oldest_reader FROM {schema}.schema_version"
_VERSION_TABLE: Final = """
    CREATE TABLE {schema}.schema_version (
        version integer NOT NULL,
        oldest_reader integer NOT NULL,
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
    );
    INSERT INTO {schema}.schema_version VALUES (0, 0);
"""


async def prepare(
    connection: asyncpg.Connection[asyncpg.Record], schema: str, patience: timedelta
) -> None:
    """Set the connection's limits, check the server, and bring the schema up to date.

    Refused when the server may lose what it confirms, or when the schema is too new.
    """
    async with asyncio.timeout(patience.total_seconds()):
        await _greet(connection, patience)
        version, oldest_reader = await _version(connection, schema)
    if oldest_reader > len(MIGRATIONS):
        raise Refused(
            f"a newer VmShepherd has made the tables in {schema!r} (schema {version}, readable "
            f"from {oldest_reader}; this one knows {len(MIGRATIONS)}): run that one, or set "
            "runtime.options.schema to another name",
            reason="STORE_TOO_NEW",
        )
    if version < len(MIGRATIONS):
        async with asyncio.timeout(_MIGRATION_SECONDS):
            await _migrate(connection, schema)


def within(schema: str, statement: str) -> str:
    """The statement, said of the tables in that schema; its name is none that needs quotes."""
    return statement.replace("{schema}", schema)


def whole_script(schema: str, user: str) -> str:
    """All that a database's owner runs where the user itself may not create."""
    parts = [f"BEGIN;\nCREATE SCHEMA {schema};", within(schema, _VERSION_TABLE)]
    parts += [_step(schema, version) for version in range(1, len(MIGRATIONS) + 1)]
    rights = "SELECT, INSERT, UPDATE, DELETE"
    parts += [
        f'GRANT USAGE ON SCHEMA {schema} TO "{user}";',
        f'GRANT {rights} ON ALL TABLES IN SCHEMA {schema} TO "{user}";',
        "COMMIT;\n",
    ]
    return "\n".join(parts)


async def _greet(connection: asyncpg.Connection[asyncpg.Record], patience: timedelta) -> None:
    if connection.get_server_version().major < _OLDEST_SERVER:
        raise _unfit(f"is older than version {_OLDEST_SERVER}: upgrade it")
    limit = patience // timedelta(milliseconds=1)
    [greeting] = await connection.fetch(_GREETING, str(limit), str(limit // 2))
    for setting in ("fsync", "full_page_writes"):
        if greeting[setting] != "on":
            raise _unfit(f"has {setting} off and may lose what it confirmed: set it to on")
    if greeting["encoding"] != "UTF8":
        raise _unfit("keeps this database in another encoding than UTF8: create one that is")


async def _version(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> tuple[int, int]:
    """Of the tables that are there, and of the oldest version that may use them; 0 for none."""
    is_there = "SELECT to_regclass($1) IS NOT NULL"
    if not await connection.fetchval(is_there, f"{schema}.schema_version"):
        return 0, 0
    [row] = await connection.fetch(within(schema, _VERSION))
    return row["version"], row["oldest_reader"]


async def _migrate(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{_MIGRATION_SECONDS}s'")
        key = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
        await connection.execute(key, f"vmshepherd {schema}")
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
            await connection.execute(f"CREATE SCHEMA {schema}")
        if not await connection.fetchval(
            "SELECT to_regclass($1) IS NOT NULL", f"{schema}.schema_version"
        ):
            await connection.execute(within(schema, _VERSION_TABLE))
        # Read anew: another process may have migrated while this one waited.
        version, _ = await _version(connection, schema)
        for following in range(version + 1, len(MIGRATIONS) + 1):
            await connection.execute(_step(schema, following))


def _step(schema: str, version: int) -> str:
    reached = _REACHED.replace("{version}", str(version)).replace("{reader}", str(OLDEST_READER))
    return within(schema, MIGRATIONS[version - 1] + reached)


def _unfit(what: str) -> Refused:
    return Refused(f"the PostgreSQL server {what}", reason="STORE_UNFIT")
