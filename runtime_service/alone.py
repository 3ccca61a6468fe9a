"""A store for one process: a lock file, held by whoever uses the store and free when they end.

Drivers that promise `Trait.EXCLUSIVE` enter `ours_alone` before they open anything.  The lock is
the operating system's, so that no crash leaves it behind; every refusal says what to do.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vmshepherd_kit.errors import Refused


@contextmanager
def ours_alone(lock_file: Path, *, store: str, elsewhere: str) -> Iterator[None]:
    """Hold the store against other processes; its folder is made if it is not there.

    Refused / STORE_IN_USE names who has it, and `elsewhere` says how to use another one.
    """
    _make_room(lock_file.parent, elsewhere)
    with _opened(lock_file, elsewhere) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            lock.seek(0)
            raise _in_use(store, lock.read(20).strip(), elsewhere) from e
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def private(path: str, flags: int) -> int:
    """Opens a file that nobody else may read, as `open` asks its opener to."""
    return os.open(path, flags, 0o600)


def unusable(path: Path, why: OSError, *, elsewhere: str) -> Refused:
    """The refusal of a file or folder that the operating system does not let us have."""
    return Refused(
        f"{path} cannot be made or written ({why.strerror}): let the user of this process own its "
        f"directory, or {elsewhere}",
        reason="STORE_UNUSABLE",
    )


def _make_room(folder: Path, elsewhere: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise unusable(folder, e, elsewhere=elsewhere) from e


def _opened(path: Path, elsewhere: str) -> IO[str]:
    try:
        return open(path, "a+", encoding="ascii", opener=private)
    except OSError as e:
        raise unusable(path, e, elsewhere=elsewhere) from e


def _in_use(store: str, pid: str, elsewhere: str) -> Refused:
    holder = "this process" if pid == str(os.getpid()) else f"process {pid or 'unknown'}"
    return Refused(
        f"{store} is in use by {holder}: end it first, or {elsewhere}",
        reason="STORE_IN_USE",
        pid=pid,
    )
