"""What SQLite's errors mean, in sentences an operator can act upon.

What is not in the table is a bug of ours and stays what it is.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from vmshepherd_kit.errors import QuotaExceeded, ShepherdError, Unavailable

_FULL: Final = (
    "no space is left for {path}: nothing was written, and what was written before is still read; "
    "free space there, and it goes on by itself"
)
_READ_ONLY: Final = (
    "{path} cannot be written: this process must own the file and its directory, and the file "
    "system must be mounted writable"
)
_BUSY: Final = (
    "another program keeps {path} locked: end it (`fuser {path}` names it), and it goes on by "
    "itself"
)
_DAMAGED: Final = (
    "{path} is damaged, or is no SQLite database: stop this service, keep the file for inquiry, "
    "and put a backup or nothing in its place"
)
_FAILING: Final = (
    "the operating system fails to read or write {path} (a broken disk, a quota, or no memory): "
    "the kernel's log says which"
)

_MEANINGS: Final[dict[int, tuple[type[ShepherdError], str, str]]] = {
    sqlite3.SQLITE_FULL: (QuotaExceeded, "STORE_FULL", _FULL),
    sqlite3.SQLITE_READONLY: (Unavailable, "STORE_READ_ONLY", _READ_ONLY),
    sqlite3.SQLITE_PERM: (Unavailable, "STORE_READ_ONLY", _READ_ONLY),
    sqlite3.SQLITE_CANTOPEN: (Unavailable, "STORE_READ_ONLY", _READ_ONLY),
    sqlite3.SQLITE_BUSY: (Unavailable, "STORE_BUSY", _BUSY),
    sqlite3.SQLITE_LOCKED: (Unavailable, "STORE_BUSY", _BUSY),
    sqlite3.SQLITE_CORRUPT: (Unavailable, "STORE_DAMAGED", _DAMAGED),
    sqlite3.SQLITE_NOTADB: (Unavailable, "STORE_DAMAGED", _DAMAGED),
    sqlite3.SQLITE_IOERR: (Unavailable, "STORE_FAILING", _FAILING),
    sqlite3.SQLITE_NOMEM: (Unavailable, "STORE_FAILING", _FAILING),
}


def understood(error: BaseException, path: Path) -> BaseException:
    """The error to raise in place of this one."""
    # The lower byte of a code is the kind, the rest is detail; misuse has no code at all.
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if not isinstance(error, sqlite3.Error) or kind not in _MEANINGS:
        return error
    meaning, reason, sentence = _MEANINGS[kind]
    meant = meaning(sentence.format(path=path), reason=reason, path=str(path))
    meant.__cause__ = error
    return meant
