"""What errors of PostgreSQL and of the way to it mean, in sentences an operator can act upon.

What is not in the table is a bug of ours and stays what it is.  No sentence repeats what the
server said: it may quote values.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from vmshepherd_kit.errors import (
    QuotaExceeded,
    Refused,
    SessionLost,
    ShepherdError,
    Unavailable,
)

RETRIED: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialisation, deadlock, a row that is locked: nothing has happened, and another try is right."""

# Of these the connection itself has ended, or leads to a server that is not ours any more.
_OF_CONNECTION: Final = ("08", "25006", "25P03", "3F000", "42883", "42P01", "57P")

LOST: Final = "the session has expired or was closed: stop, then open another one"
_UNREACHABLE: Final = (
    "the database at {where} is out of reach: see that it runs and takes connections from here; "
    "it goes on by itself"
)
_BUSY: Final = (
    "the database at {where} did not answer in time: its load, its locks (pg_stat_activity) or a "
    "synchronous standby that is away may be why; it goes on by itself"
)
_CROWDED: Final = (
    "the database at {where} takes no more connections: raise its max_connections, or lower "
    "runtime.options.pool_size; it goes on by itself"
)
_READ_ONLY: Final = (
    "the database at {where} takes no writes: a standby must be promoted, or "
    "default_transaction_read_only be off; it goes on by itself"
)
_FULL: Final = (
    "no space is left for the database at {where}: nothing was written, and what was written "
    "before is still read; free space there, and it goes on by itself"
)
_DAMAGED: Final = (
    "the database at {where} reports damaged data: stop it, keep its files for inquiry, and "
    "restore a backup"
)
_FAILING: Final = (
    "the database at {where} fails to read or write, or has no memory: its log says why"
)
_WITHOUT_TABLES: Final = (
    "the tables of VmShepherd are gone from the database at {where}: restore a backup, or let the "
    "next call make empty ones"
)
_STRANGER: Final = (
    "the database at {where} refuses its user: correct user and password in runtime.options (or "
    "PGPASSWORD), or its pg_hba.conf"
)
_NO_DATABASE: Final = (
    "the server at {where} has no such database: create it (CREATE DATABASE), or correct "
    "runtime.options.database"
)
_NO_RIGHT: Final = (
    "the user may not do this in the database at {where}: let its owner run what `python -m "
    "runtime_service.drivers.postgres` prints"
)

_MEANINGS: Final[dict[str, tuple[type[ShepherdError], str, str]]] = {
    "VS001": (SessionLost, "SESSION_LOST", LOST),
    "08": (Unavailable, "STORE_UNREACHABLE", _UNREACHABLE),
    "25006": (Unavailable, "STORE_READ_ONLY", _READ_ONLY),
    "25P03": (Unavailable, "STORE_UNREACHABLE", _UNREACHABLE),
    "28": (Refused, "STORE_DENIED", _STRANGER),
    "3D000": (Refused, "STORE_DENIED", _NO_DATABASE),
    "3F000": (Unavailable, "STORE_NOT_PREPARED", _WITHOUT_TABLES),
    "40001": (Unavailable, "STORE_BUSY", _BUSY),
    "40P01": (Unavailable, "STORE_BUSY", _BUSY),
    "42501": (Refused, "STORE_DENIED", _NO_RIGHT),
    "42883": (Unavailable, "STORE_NOT_PREPARED", _WITHOUT_TABLES),
    "42P01": (Unavailable, "STORE_NOT_PREPARED", _WITHOUT_TABLES),
    "53100": (QuotaExceeded, "STORE_FULL", _FULL),
    "53200": (Unavailable, "STORE_FAILING", _FAILING),
    "53300": (Unavailable, "STORE_BUSY", _CROWDED),
    "53400": (Unavailable, "STORE_BUSY", _CROWDED),
    "55P03": (Unavailable, "STORE_BUSY", _BUSY),
    "57014": (Unavailable, "STORE_BUSY", _BUSY),
    "57P": (Unavailable, "STORE_UNREACHABLE", _UNREACHABLE),
    "58": (Unavailable, "STORE_FAILING", _FAILING),
    "XX001": (Unavailable, "STORE_DAMAGED", _DAMAGED),
    "XX002": (Unavailable, "STORE_DAMAGED", _DAMAGED),
}
"""By SQLSTATE, or by what it begins with."""


def understood(error: BaseException, where: str) -> ShepherdError | None:
    """The error to raise in place of this one, if any; `where` names hosts and database."""
    if isinstance(error, ShepherdError):
        return error
    if (found := _meaning(error)) is None:
        return None
    meaning, reason, sentence = found
    return meaning(sentence.format(where=where), reason=reason)


def at_run_time(error: BaseException, where: str) -> ShepherdError | None:
    """The same; what refuses a start is out of reach later, for somebody mends it meanwhile."""
    meant = understood(error, where)
    if isinstance(meant, Refused) and not isinstance(meant, SessionLost):
        return Unavailable(meant.message, reason="STORE_UNREACHABLE")
    return meant


def is_of_connection(error: BaseException) -> bool:
    """Whether this connection, and those like it, had better not be used again."""
    return not isinstance(error, asyncpg.PostgresError) or state_of(error).startswith(
        _OF_CONNECTION
    )


def state_of(error: BaseException) -> str:
    """The SQLSTATE of an error of the server, "" of any other."""
    return (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""


def _meaning(error: BaseException) -> tuple[type[ShepherdError], str, str] | None:
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return _MEANINGS["25006"]
    if isinstance(error, TimeoutError):
        return _MEANINGS["57014"]
    # Names that cannot be resolved, connections that are refused or broken, TLS; a connection
    # that the server has ended meanwhile is an internal error of the client at times.  A wrong
    # value for a statement is an InterfaceError too, and a bug.
    broken = OSError | asyncpg.InterfaceError | asyncpg.InternalClientError
    if isinstance(error, broken) and not isinstance(error, ValueError):
        return _MEANINGS["08"]
    state = state_of(error)
    return _MEANINGS.get(state) or _MEANINGS.get(state[:3]) or _MEANINGS.get(state[:2])
