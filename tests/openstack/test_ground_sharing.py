"""One cloud for many: it goes when its last user does, and leaves no process.

Nothing here needs OpenStack: what is kept is a process that sleeps.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.openstack import shared
from tests.openstack.cloud import daemons, database, program
from tests.openstack.cloud.daemons import Daemon
from tests.openstack.cloud.place import PORTS_NEEDED, Place
from tests.openstack.ground import OpenStack, until

ASLEEP = Daemon(name="asleep", command=("sleep", "1000"))
KEEPER = """
import sys
from pathlib import Path
from tests.openstack.cloud import daemons, program
from tests.openstack.cloud.place import Place

def up(place, say):
    daemons.start(place, daemons.Daemon(name="asleep", command=("sleep", "1000")))

program.up = up
program.keep(Place.of(Path(sys.argv[1])), print)
"""
USER = """
import sys, time
from pathlib import Path
from tests.openstack import shared

with shared.user(Path(sys.argv[1])):
    print("uses it", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place.of(tmp_path / "run" / "cloud")
    for name in ("run", "log"):
        (made.folder / name).mkdir()
    yield made
    with suppress(FileNotFoundError):
        daemons.stop(made, *daemons.names(made), patience=0)


@contextmanager
def running(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        cwd=shared.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_cloud_goes_when_its_last_user_has_been_killed(place: Place) -> None:
    users = program.users(place)
    with running(USER, users) as first, running(USER, users) as last:
        for user in (first, last):
            assert user.stdout is not None
            assert user.stdout.readline() == "uses it\n"
        with running(KEEPER, place.folder) as keeper:
            until(lambda: daemons.is_running(place, "asleep"), "it is started")
            pid = int(place.run("asleep.pid").read_text())
            first.kill()
            first.wait()
            with pytest.raises(subprocess.TimeoutExpired):
                keeper.wait(1)
            assert daemons.is_running(place, "asleep")
            last.kill()
            assert keeper.wait(30) == 0
    assert not place.folder.parent.exists()
    until(lambda: not lives(pid), "its process is gone")


def lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_who_waited_for_a_run_to_be_over_does_not_hold_the_lock_that_went_with_it(
    tmp_path: Path,
) -> None:
    users = tmp_path / "users"
    with users.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with running(USER, users) as user:
            until(lambda: users in opened(user.pid), "it waits")
            users.unlink()
            fcntl.flock(file, fcntl.LOCK_UN)
            assert user.stdout is not None
            assert user.stdout.readline() == "uses it\n"
            assert users in opened(user.pid)


def opened(pid: int) -> set[Path]:
    """The files that a process has open, but for those that it closes while one looks."""
    found = set[Path]()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(link.readlink())
    return found


def test_a_process_is_started_once_and_ends_when_it_is_told(place: Place) -> None:
    daemons.start(place, ASLEEP)
    pid = place.run("asleep.pid").read_text()
    daemons.start(place, ASLEEP)
    assert place.run("asleep.pid").read_text() == pid
    daemons.stop(place, "asleep")
    assert not daemons.is_running(place, "asleep")
    assert daemons.names(place) == []


def test_a_process_that_stands_still_is_found_and_goes_on(place: Place) -> None:
    daemons.start(place, ASLEEP)
    daemons.suspend(place, "asleep")
    until(lambda: daemons.stands_still(place, "asleep"), "it stands still")
    daemons.resume(place, "asleep")
    until(lambda: not daemons.stands_still(place, "asleep"), "it goes on")
    daemons.suspend(place, "asleep")
    daemons.stop(place, "asleep", patience=1000)
    assert not daemons.is_running(place, "asleep")


def test_children_that_do_not_want_to_end_are_ended_too(place: Place) -> None:
    stubborn = "trap '' TERM; sleep 1000 & echo $! >child; wait"
    daemons.start(place, Daemon(name="stubborn", command=("sh", "-c", stubborn)))
    child = place.folder / "child"
    until(lambda: child.exists() and bool(child.read_text()), "it has a child")
    daemons.stop(place, "stubborn", patience=0.1)
    until(lambda: not lives(int(child.read_text())), "the child is gone")


def test_who_waits_for_a_process_that_has_ended_is_told_its_last_words(place: Place) -> None:
    daemons.start(place, Daemon(name="brief", command=("sh", "-c", "echo no such luck; exit 1")))
    with pytest.raises(daemons.NotReady, match=r"brief has ended before it serves(.|\n)*luck"):
        daemons.wait(place, "brief", "it serves", lambda: False)


def test_two_places_have_ports_of_their_own_and_keep_them(tmp_path: Path) -> None:
    one = Place.of(tmp_path / "one")
    assert Place.of(tmp_path / "one") == one
    other = Place(tmp_path / "other", one.first_port + PORTS_NEEDED)
    ports = [{place.port(name) for name in ("keystone", "nova", "epmd")} for place in (one, other)]
    assert not ports[0] & ports[1]


@pytest.fixture
def whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place where all runs that should."""
    monkeypatch.setattr(program, "lacking", lambda _: [])
    return place


@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False), (True, True)])
def test_who_breaks_the_cloud_waits_for_all_others_and_they_for_him(
    whole: Place, *, first: bool, second: bool
) -> None:
    began = threading.Event()

    def another() -> None:
        with shared.turn(whole, alone=second):
            began.set()

    with ThreadPoolExecutor(1) as pool:
        with shared.turn(whole, alone=first):
            waiting = pool.submit(another)
            assert not began.wait(0.3)
        waiting.result(30)
    assert began.is_set()


def test_who_breaks_nothing_waits_for_nobody_who_does_not(whole: Place) -> None:
    with shared.turn(whole, alone=False), shared.turn(whole, alone=False):
        pass


def test_who_waits_for_a_turn_too_long_is_told_who_has_it(
    whole: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_TURN_SECONDS", 0.3)
    command = Path("/proc/self/cmdline").read_text().replace("\0", " ").strip()
    holder = re.escape(f"process {os.getpid()} ({command})")
    told = rf"turns is held by {holder}; see what that waits for"
    with (
        shared.turn(whole, alone=False),
        pytest.raises(daemons.NotReady, match=told),
        shared.turn(whole, alone=True),
    ):
        pass
    # What it waited for comes, and goes at once.
    monkeypatch.setattr(shared, "_TURN_SECONDS", 30)
    with shared.turn(whole, alone=True):
        pass


def test_a_process_that_no_cloud_has_is_not_stopped_but_refused(place: Place) -> None:
    cloud = OpenStack(place, is_alone=True)
    with pytest.raises(AssertionError, match=r"no process is called nova-apy; known: .*nova-api"):
        cloud.stop("nova-scheduler", "nova-apy")


def test_what_somebody_left_broken_is_mended_by_one_who_has_it_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ["nova-api"]

    def heal(_: Place) -> None:
        with (place.folder / "turns").open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        broken.clear()

    monkeypatch.setattr(program, "lacking", lambda _: broken)
    monkeypatch.setattr(program, "heal", heal)
    with shared.turn(place, alone=False):
        assert broken == []
        with shared.turn(place, alone=False):
            pass


@pytest.mark.parametrize("statements", range(5))
def test_a_server_that_comes_to_its_cell_while_one_looks_is_seen(
    place: Place, monkeypatch: pytest.MonkeyPatch, statements: int
) -> None:
    asked: list[str] = []

    def sql(_: Place, statement: str) -> list[list[str]]:
        asked.append(statement)
        has_come = len(asked) > statements
        where = "nova_cell1.instances" if has_come else "nova_api.build_requests"
        return [["one", "building"]] if where in statement else []

    monkeypatch.setattr(database, "sql", sql)
    project = Mock(project_id="mine")
    assert OpenStack(place, is_alone=False).servers(project) == {"one": "building"}
