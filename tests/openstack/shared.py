"""One cloud for all test processes of a run: whoever needs it first starts it.

Each user holds a shared lock, which ends with its process, however that ends.  A keeper beside them
(`program.keep`) waits for the lock to be free of all, and takes the cloud down.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from tests.openstack.cloud import daemons, program
from tests.openstack.cloud.place import FOLDER_VARIABLE, Place

ROOT: Final = Path(__file__).parents[2]
_PATIENCE_SECONDS: Final = 900
# Several may break the cloud one after the other, each for some minutes.
_TURN_SECONDS: Final = 1800.0


def missing() -> str | None:
    """How to get what is not there, or None."""
    if os.environ.get(FOLDER_VARIABLE):
        return None
    if lacking := program.missing():
        return f"OpenStack is missing: apt-get install --no-install-recommends {' '.join(lacking)}"
    return None


@contextmanager
def cloud_of_this_run() -> Iterator[Place]:
    """The developer's own, where the environment names one; else that of this run of pytest."""
    if own := os.environ.get(FOLDER_VARIABLE):
        yield _running(Path(own).absolute())
        return
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"vmshepherd-openstack-{run[:12]}"
    with user(folder / "users"):
        yield _started(folder)


@contextmanager
def user(users: Path) -> Iterator[None]:
    """One more, until the end of the block or of this process."""
    while True:
        users.parent.mkdir(exist_ok=True)
        with users.open("a") as file:
            # A keeper that ends its cloud makes us wait here, and takes the file away.
            fcntl.flock(file, fcntl.LOCK_SH)
            if _is_there(users, file):
                yield
                return


def _is_there(path: Path, file: TextIOWrapper) -> bool:
    return path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino


@contextmanager
def turn(place: Place, *, alone: bool) -> Iterator[None]:
    """A test's turn: side by side with others, or alone when it breaks what they need.

    All of the cloud runs then, whatever was done to it before, and by whom.
    """
    with (place.folder / "turns").open("a") as file:
        mine = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        _take(file, mine)
        if program.lacking(place):
            _take(file, fcntl.LOCK_EX)
            program.heal(place)
            _take(file, mine)
        yield


def _take(file: TextIOWrapper, how: int) -> None:
    """Wait for the lock, and not for ever.  NotReady names those who hold it."""
    with suppress(BlockingIOError):
        fcntl.flock(file, how | fcntl.LOCK_NB)
        return
    # The kernel's own wait has its order, and no end: it is another thread's.
    waiting = threading.Thread(target=_wait_for, args=(os.dup(file.fileno()), how), daemon=True)
    waiting.start()
    waiting.join(_TURN_SECONDS)
    if waiting.is_alive():
        raise daemons.NotReady(
            f"no turn at the cloud within {_TURN_SECONDS:.0f} s: {file.name} is held by "
            f"{'; '.join(_holders(file)) or 'somebody'}; see what that waits for, or end it, and "
            "run this again"
        )


def _wait_for(descriptor: int, how: int) -> None:
    """Who has given up meanwhile has closed the file: the lock goes with this descriptor then."""
    try:
        fcntl.flock(descriptor, how)
    finally:
        os.close(descriptor)


def _holders(file: TextIOWrapper) -> list[str]:
    """By the kernel's list, in which those who wait bear an arrow."""
    inode = f":{os.fstat(file.fileno()).st_ino}"
    rows = map(str.split, Path("/proc/locks").read_text().splitlines())
    pids = {row[4] for row in rows if row[1] == "FLOCK" and row[5].endswith(inode)}
    return [f"process {pid} ({_command(pid)})" for pid in sorted(pids)]


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return "not seen from here"


def _running(folder: Path) -> Place:
    place = Place.of(folder)
    assert program.is_up(place), f"no OpenStack runs in {folder}: start it by tests/openstack/up"
    return place


def _started(folder: Path) -> Place:
    with (folder / "start").open("a") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        place = Place.of(folder / "cloud")
        if not program.is_up(place):
            _start(place)
        return place


def _start(place: Place) -> None:
    """A keeper that outlives us starts it."""
    log = place.folder.parent / "log"
    with log.open("ab") as said:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.openstack.cloud", "keep"],
            env={**os.environ, FOLDER_VARIABLE: str(place.folder)},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not program.is_up(place):
        assert keeper.poll() is None, f"OpenStack does not start:\n{log.read_text()[-4000:]}"
        assert time.monotonic() < deadline, f"OpenStack does not start in time: {log}"
        time.sleep(0.2)
    # It ends after us: nobody waits for it.
    keeper.returncode = 0
