"""Opening the database file: ours alone, on a disk of this machine, of a schema we know.

Runs before anything is served; every refusal says what to do.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runtime_service import alone
from vmshepherd_kit.errors import Refused

# "VMSh": `file` and others tell the database by it.
_APPLICATION: Final = 0x564D5368

# SQLite's locks and its shared memory do not work over these, or not always.
_NETWORK: Final = re.compile(
    r"afs|ceph|cifs|coda|glusterfs|gpfs|lustre|nfs4?|ocfs2|orangefs|smb3|smbfs"
    r"|fuse\.(ceph|davfs2?|glusterfs|rclone|s3fs|sshfs).*"
)

_ELSEWHERE: Final = "set runtime.options.path to another file"

# How a mountinfo file writes a space.
_OCTAL: Final = re.compile(r"\\([0-7]{3})")

# One script a version of the schema; never changed after a release, only followed by another.
_MIGRATIONS: Final = (
    """
    CREATE TABLE boot (id TEXT NOT NULL) STRICT;
    INSERT INTO boot VALUES ('');
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        ttl INTEGER NOT NULL,
        lock_delay INTEGER NOT NULL,
        labels TEXT NOT NULL,
        opened INTEGER NOT NULL,
        expires INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE locks (
        name TEXT PRIMARY KEY,
        token INTEGER NOT NULL CHECK (token > 0),
        holder TEXT REFERENCES sessions (session_id) ON DELETE SET NULL,
        granted INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX locks_by_holder ON locks (holder);
    CREATE TRIGGER tokens_only_grow BEFORE UPDATE OF token ON locks WHEN NEW.token < OLD.token
    BEGIN SELECT RAISE (ABORT, 'a token must not shrink'); END;
    CREATE TRIGGER tokens_are_kept BEFORE DELETE ON locks
    BEGIN SELECT RAISE (ABORT, 'a lock must not be deleted'); END;
    CREATE TABLE states (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL,
        version INTEGER NOT NULL CHECK (version > 0),
        token INTEGER NOT NULL CHECK (token > 0),
        written INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        event_id TEXT NOT NULL UNIQUE,
        time INTEGER NOT NULL,
        preset TEXT NOT NULL,
        vm_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        rest TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_preset ON events (preset, sequence);
    CREATE INDEX events_by_vm ON events (vm_id, sequence);
    """,
)


@contextmanager
def ours_alone(path: Path) -> Iterator[None]:
    """Hold the database against other processes, by a lock that ends with this process.

    Refused / STORE_IN_USE names who has it.
    """
    _refuse_network(path)
    lock_file = Path(f"{path}.lock")
    with alone.ours_alone(lock_file, store=str(path), elsewhere=_ELSEWHERE):
        yield


def opened(path: Path) -> sqlite3.Connection:
    """The database, of today's schema; it belongs to the thread that opened it."""
    try:
        os.close(alone.private(str(path), os.O_CREAT | os.O_RDWR))
    except OSError as e:
        raise alone.unusable(path, e, elsewhere=_ELSEWHERE) from e
    db = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        db.execute("PRAGMA foreign_keys = ON")
        _refuse_strangers(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        # Each commit reaches the disk before it is answered.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        _migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def this_boot() -> str:
    """Names the span within which readings of the boot clock can be compared; "" when unknown.

    That is one boot of the machine, seen from one time namespace.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/time")
        return f"{boot} {namespace.readlink()}" if namespace.is_symlink() else boot
    except OSError:
        return ""


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system that holds an absolute path, by the lines of a mountinfo file."""
    found, kind = -1, "unknown"
    for line in mounts.splitlines():
        fields = line.split(" ")
        mounted = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        # A later mount on the same place covers the earlier one.
        if path.is_relative_to(mounted) and len(mounted.parts) >= found:
            found, kind = len(mounted.parts), fields[fields.index("-") + 1]
    return kind


def _refuse_network(path: Path) -> None:
    kind = _file_system(path)
    if _NETWORK.fullmatch(kind):
        raise Refused(
            f"{path} lies on a network file system ({kind}), where SQLite loses data: set "
            "runtime.options.path to a disk of this machine",
            reason="STORE_ON_NETWORK",
            file_system=kind,
        )


def _file_system(path: Path) -> str:
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    return file_system_of(path.parent.resolve(), mounts)


def _refuse_strangers(db: sqlite3.Connection, path: Path) -> None:
    application, version = _pragma(db, "application_id"), _pragma(db, "user_version")
    is_new = not version and not _pragma(db, "schema_version")
    if application != _APPLICATION and not is_new:
        raise Refused(
            f"{path} is a database of another program: {_ELSEWHERE}",
            reason="STORE_OF_ANOTHER_PROGRAM",
        )
    if version > len(_MIGRATIONS):
        raise Refused(
            f"{path} was written by a newer VmShepherd (schema {version}, this one knows "
            f"{len(_MIGRATIONS)}): run that one, or {_ELSEWHERE}",
            reason="STORE_TOO_NEW",
        )


def _migrate(db: sqlite3.Connection) -> None:
    for version in range(_pragma(db, "user_version"), len(_MIGRATIONS)):
        # Within one transaction, the version included, a script is run wholly or not at all.
        db.executescript(
            f"BEGIN IMMEDIATE; {_MIGRATIONS[version]} PRAGMA application_id = {_APPLICATION}; "
            f"PRAGMA user_version = {version + 1}; COMMIT"
        )


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value
