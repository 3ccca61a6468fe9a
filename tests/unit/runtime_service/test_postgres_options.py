"""Options of the PostgreSQL driver, those of VmShepherd 1.6 included, and what its errors mean."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from runtime_service.config import Config
from runtime_service.drivers.postgres import PostgresOptions, PostgresRuntime, failures, queries
from vmshepherd_kit import drivers, predecessor, settings
from vmshepherd_kit.errors import QuotaExceeded, Refused, SessionLost, Unavailable

FORMER = {
    "driver": "PostgresDriver",
    "host": "db.example",
    "port": 5433,
    "database": "shepherd",
    "user": "me",
    "password": "s3cret",
    "pool_size": 4,
}


def parsed(**options: Any) -> PostgresOptions:
    return settings.parse(options, PostgresOptions, where="runtime.options")


@pytest.mark.parametrize("nested", [False, True])
def test_the_runtime_of_a_former_file_is_understood_as_it_is(nested: bool, tmp_path: Path) -> None:  # noqa: FBT001
    given = dict(FORMER)
    if nested:
        given = {"driver": given.pop("driver"), "driver_params": given}
    done = predecessor.translate({"runtime": given}, working_dir=tmp_path, beside=tmp_path)
    config = settings.parse(done.raw["runtime"], Config)
    assert drivers.load("runtime", config.driver) is PostgresRuntime
    options = parsed(**config.options)
    assert options.addresses == (("db.example", 5433),)
    assert (options.database, options.user, options.pool_size) == ("shepherd", "me", 4)
    assert options.secret(tmp_path) == "s3cret"


@pytest.mark.parametrize(
    ("host", "port", "addresses"),
    [
        ("a", 1, (("a", 1),)),
        ("a, b", 1, (("a", 1), ("b", 1))),
        (["a", "b"], "1,2", (("a", 1), ("b", 2))),
        ("/run/postgresql", [1], (("/run/postgresql", 1),)),
        ("::1", 1, (("::1", 1),)),
    ],
)
def test_hosts_and_ports_are_one_or_many(host: object, port: object, addresses: object) -> None:
    assert parsed(host=host, port=port).addresses == addresses


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"host": "a,b", "port": "1,2,3"}, "one for all hosts, or one for each"),
        ({"host": ""}, "at least 1 character"),
        ({"password": "s3cret", "password_file": "f"}, "remove one"),
        ({"tls": {"ca": "ca.pem"}}, "sslmode must be"),
        ({"schema": 'x"; DROP TABLE'}, "pattern"),
        ({"passwort": "s3cret"}, "did you mean 'password'"),
        ({"password": ["s3cret"]}, "is not valid"),
    ],
)
def test_what_is_wrong_is_said_without_its_value(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(settings.Invalid) as refused:
        parsed(**wrong)
    assert said in refused.value.message
    assert "s3cret" not in refused.value.message


def test_a_password_of_digits_is_one_and_none_is_shown() -> None:
    options = parsed(password=1234567)
    assert options.secret(Path()) == "1234567"
    assert "1234567" not in f"{options!r} {options} {options.model_dump()}"


def test_only_the_modes_that_say_so_verify_the_server(tmp_path: Path) -> None:
    assert parsed(sslmode="disable").encryption(tmp_path) is False
    assert parsed().encryption(tmp_path) == "prefer"
    seen = {}
    for mode in ("require", "verify-ca", "verify-full"):
        context = parsed(sslmode=mode).encryption(tmp_path)
        assert isinstance(context, ssl.SSLContext)
        seen[mode] = (context.verify_mode, context.check_hostname)
    assert seen == {
        "require": (ssl.CERT_NONE, False),
        "verify-ca": (ssl.CERT_REQUIRED, False),
        "verify-full": (ssl.CERT_REQUIRED, True),
    }


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"absent\.pem"):
        parsed(sslmode="verify-full", tls={"ca": "absent.pem"}).encryption(tmp_path)


@pytest.mark.parametrize(
    ("error", "meaning", "reason"),
    [
        (ConnectionRefusedError(), Unavailable, "STORE_UNREACHABLE"),
        (asyncpg.AdminShutdownError(), Unavailable, "STORE_UNREACHABLE"),
        (asyncpg.CannotConnectNowError(), Unavailable, "STORE_UNREACHABLE"),
        (asyncpg.InterfaceError("connection is closed"), Unavailable, "STORE_UNREACHABLE"),
        (asyncpg.InternalClientError("cannot switch"), Unavailable, "STORE_UNREACHABLE"),
        (TimeoutError(), Unavailable, "STORE_BUSY"),
        (asyncpg.QueryCanceledError(), Unavailable, "STORE_BUSY"),
        (asyncpg.TooManyConnectionsError(), Unavailable, "STORE_BUSY"),
        (asyncpg.ReadOnlySQLTransactionError(), Unavailable, "STORE_READ_ONLY"),
        (asyncpg.TargetServerAttributeNotMatched(), Unavailable, "STORE_READ_ONLY"),
        (asyncpg.DiskFullError(), QuotaExceeded, "STORE_FULL"),
        (asyncpg.DataCorruptedError(), Unavailable, "STORE_DAMAGED"),
        (asyncpg.InvalidPasswordError(), Refused, "STORE_DENIED"),
        (asyncpg.InsufficientPrivilegeError(), Refused, "STORE_DENIED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_goes_wrong_is_said_by_what_to_do(
    error: Exception, meaning: type[Exception], reason: str
) -> None:
    meant = failures.understood(error, "db.example:5432/shepherd")
    assert type(meant) is meaning
    assert meant is not None
    assert meant.reason == reason
    assert "db.example:5432/shepherd" in meant.message


def test_what_refuses_a_start_is_out_of_reach_later_and_a_lost_session_stays_lost() -> None:
    later = failures.at_run_time(asyncpg.InvalidPasswordError(), "here")
    assert isinstance(later, Unavailable)
    assert isinstance(failures.at_run_time(SessionLost("over"), "here"), SessionLost)


def test_what_is_a_bug_of_ours_stays_one() -> None:
    for bug in (asyncpg.SyntaxOrAccessError(), asyncpg.UniqueViolationError(), KeyError()):
        assert failures.understood(bug, "here") is None


def test_texts_are_kept_so_that_none_is_taken_for_another() -> None:
    texts = ["\0", "\\0", "\\u0000", "\\\\u0000", '"', '\\"', "plain", "köln \U0010ffff"]
    kept = [queries.kept(text) for text in texts]
    assert len(set(kept)) == len(texts)
    assert all("\0" not in each for each in kept)
    assert queries.kept("köln") == "köln"
