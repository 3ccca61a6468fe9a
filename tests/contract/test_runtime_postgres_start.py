"""What the PostgreSQL driver needs before it serves: a database that may be used, and its tables.

Whatever will never work is refused at the start with the way out; what may come later is waited
for.  A password is shown nowhere.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runtime_service.domain import Acquired
from runtime_service.drivers.postgres import schema
from tests.support import postgres
from tests.support.postgres import PASSWORD, USER, Server
from tests.support.postgres_stores import direct_to, granted, opened, session, until
from vmshepherd_kit.errors import Refused, Unavailable

Options = dict[str, Any]
# As a later release might add it: old functions stay, and old readers need nothing new.
_NEXT = """
    ALTER TABLE {schema}.locks ADD COLUMN note text;
    CREATE FUNCTION {schema}.unlock_2(_id text) RETURNS void LANGUAGE sql AS '';
"""


async def refused(options: Options, folder: Path) -> Refused:
    """How a start is refused."""
    with pytest.raises(Refused) as refusal:
        async with opened(options, folder):
            pass
    assert PASSWORD not in str(refusal.value)
    return refusal.value


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"password": "not the right one"}, "correct user and password"),
        ({"password": None}, "correct user and password"),
        ({"user": "nobody-of-that-name"}, "correct user and password"),
        ({"database": "no-such-database"}, "CREATE DATABASE"),
    ],
    ids=["wrong password", "no password", "unknown user", "no database"],
)
async def test_what_the_server_denies_is_refused_with_the_way_out(
    wrong: Options,
    hint: str,
    tmp_path: Path,
    postgres_options: Options,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    refusal = await refused({**postgres_options, **wrong}, tmp_path)
    assert refusal.reason == "STORE_DENIED"
    assert hint in refusal.message
    assert "not the right one" not in refusal.message


async def test_the_password_comes_from_a_file_or_the_environment_too(
    tmp_path: Path, postgres_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    del postgres_options["password"]
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    async with opened(postgres_options, tmp_path, password_file="secret") as store:
        await session(store, "by file")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    async with opened(postgres_options, tmp_path) as store:
        await session(store, "by environment")


async def test_a_password_file_that_is_not_there_is_named(
    tmp_path: Path, postgres_options: Options
) -> None:
    del postgres_options["password"]
    refusal = await refused({**postgres_options, "password_file": "absent"}, tmp_path)
    assert refusal.reason == "STORE_UNUSABLE"
    assert str(tmp_path / "absent") in refusal.message
    assert "runtime.options.password_file" in refusal.message


async def test_a_database_that_is_away_at_the_start_is_used_once_it_is_there(
    tmp_path: Path, postgres_options: Options, postgres_server: Server
) -> None:
    postgres_server.stop()
    with capture_logs() as log:
        async with opened(postgres_options, tmp_path) as store:
            with pytest.raises(Unavailable) as away:
                await session(store, "early")
            assert away.value.reason == "STORE_UNREACHABLE"
            assert f"{postgres_server.host}:{postgres_server.port}" in away.value.message
            await asyncio.to_thread(postgres_server.start)
            await until(lambda: _opens(store))
            await until(lambda: _is_said(log, "database is back"))
    assert await _is_said(log, "database is away")
    assert PASSWORD not in str(log)
    assert PASSWORD not in str(away.value.__cause__)


async def _opens(store: Any) -> bool:
    try:
        await session(store, "late")
    except Unavailable:
        return False
    return True


async def _is_said(log: list[Any], event: str) -> bool:
    return any(line["event"] == event for line in log)


async def test_a_password_that_is_changed_meanwhile_is_a_store_out_of_reach(
    tmp_path: Path, postgres_options: Options, postgres_server: Server
) -> None:
    async with opened(postgres_options, tmp_path) as store:
        postgres_server.sql(f"ALTER ROLE {USER} PASSWORD 'another'")
        try:
            postgres_server.terminate_backends()
            await until(lambda: _is_denied(store))
        finally:
            postgres_server.sql(f"ALTER ROLE {USER} PASSWORD '{PASSWORD}'")
        await until(lambda: _opens(store))


async def _is_denied(store: Any) -> bool:
    try:
        await store.list_sessions(after=0, limit=1)
    except Unavailable as e:
        return "correct user and password" in e.message
    # A connection that is told to end answers until it hears of it.
    return False


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_server_that_may_lose_what_it_confirms_is_refused(
    setting: str, tmp_path: Path, postgres_options: Options, postgres_server: Server
) -> None:
    with postgres_server.set_to(**{setting: "off"}):
        refusal = await refused(postgres_options, tmp_path)
    assert refusal.reason == "STORE_UNFIT"
    assert f"has {setting} off" in refusal.message


async def test_a_database_of_another_encoding_is_refused(
    tmp_path: Path, postgres_options: Options, postgres_server: Server
) -> None:
    postgres_server.sql(
        f"CREATE DATABASE latin OWNER {USER} ENCODING LATIN1 LOCALE 'C' TEMPLATE template0"
    )
    refusal = await refused({**postgres_options, "database": "latin"}, tmp_path)
    assert refusal.reason == "STORE_UNFIT"


@pytest.mark.parametrize(
    ("default", "raised"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")]
)
async def test_what_a_commit_waits_for_is_raised_and_never_lowered(
    default: str,
    raised: str,
    tmp_path: Path,
    postgres_options: Options,
    postgres_server: Server,
) -> None:
    postgres_server.sql(f"ALTER ROLE {USER} SET synchronous_commit = {default}")
    postgres_server.sql(f"ALTER ROLE {USER} SET default_transaction_isolation = 'repeatable read'")
    shown = "SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation')"
    try:
        async with opened(postgres_options, tmp_path) as store:
            [row] = await store._database.fetch(shown)
    finally:
        postgres_server.sql(f"ALTER ROLE {USER} RESET ALL")
    assert tuple(row) == (raised, "read committed")


async def test_tables_of_a_newer_version_are_used_as_long_as_it_says_so(
    tmp_path: Path, postgres_options: Options
) -> None:
    async with opened(postgres_options, tmp_path):
        pass
    newer = "UPDATE {schema}.schema_version SET version = 7, oldest_reader = $1"
    async with direct_to(postgres_options) as direct:
        await direct.run(newer, len(schema.MIGRATIONS))
        async with opened(postgres_options, tmp_path) as store:
            await session(store, "older reader")
        await direct.run(newer, len(schema.MIGRATIONS) + 1)
        refusal = await refused(postgres_options, tmp_path)
        assert refusal.reason == "STORE_TOO_NEW"
        assert "runtime.options.schema" in refusal.message
        assert await direct.run("SELECT version FROM {schema}.schema_version") == 7


async def test_a_newer_version_migrates_while_the_old_one_runs(
    tmp_path: Path, postgres_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(postgres_options, tmp_path) as old:
        holder = await session(old, "holder")
        working = asyncio.create_task(_lock_on(lambda i: granted(old, holder, f"name {i}")))
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, _NEXT))
            async with opened(postgres_options, tmp_path) as new:
                assert isinstance(await granted(new, holder, "name 0"), Acquired)
                await asyncio.wait_for(asyncio.shield(working), 30)
        assert working.result() == 100
        async with direct_to(postgres_options) as direct:
            version = len(schema.MIGRATIONS) + 1
            assert await direct.run("SELECT version FROM {schema}.schema_version") == version
        async with opened(postgres_options, tmp_path) as another_old:
            assert isinstance(await granted(another_old, holder, "name 0"), Acquired)


async def _lock_on(lock: Callable[[int], Any]) -> int:
    for number in range(100):
        assert isinstance(await lock(number), Acquired)
    return 100


async def test_a_migration_that_fails_leaves_nothing_behind(
    tmp_path: Path, postgres_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(postgres_options, tmp_path):
        pass
    half = "CREATE TABLE {schema}.half (); SELECT 1 / 0;"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, half))
    with pytest.raises(Exception, match="division by zero"):
        async with opened(postgres_options, tmp_path):
            pass
    async with direct_to(postgres_options) as direct:
        assert await direct.run("SELECT version FROM {schema}.schema_version") == 1
        assert await direct.run("SELECT to_regclass('{schema}.half') IS NULL")


async def test_where_the_user_may_not_create_the_owner_is_told_what_to_run(
    tmp_path: Path, postgres_options: Options, postgres_server: Server
) -> None:
    postgres_server.sql("CREATE DATABASE guarded")
    options = {**postgres_options, "database": "guarded"}
    refusal = await refused(options, tmp_path)
    assert refusal.reason == "STORE_DENIED"
    assert "python -m runtime_service.drivers.postgres" in refusal.message
    command = [sys.executable, "-m", "runtime_service.drivers.postgres"]
    script = await asyncio.to_thread(
        subprocess.run,
        [*command, "--schema", options["schema"], "--user", USER],
        capture_output=True,
        text=True,
        check=True,
    )
    postgres_server.sql(script.stdout, database="guarded")
    async with opened(options, tmp_path) as store:
        assert isinstance(await granted(store, await session(store, "o"), "a"), Acquired)


async def test_tables_that_are_dropped_meanwhile_are_made_anew_and_it_is_said(
    tmp_path: Path, postgres_options: Options
) -> None:
    async with opened(postgres_options, tmp_path) as store, direct_to(postgres_options) as direct:
        await session(store, "early")
        await direct.db.execute(f"DROP SCHEMA {direct.schema} CASCADE")
        with pytest.raises(Unavailable) as gone:
            await session(store, "meanwhile")
        assert gone.value.reason == "STORE_NOT_PREPARED"
        await until(lambda: _opens(store))


def test_the_missing_server_is_told_of_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "binaries", lambda: None)
    assert "apt-get install postgresql" in str(postgres.missing())
