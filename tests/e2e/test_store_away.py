"""The store out of reach: runtime_service killed, PostgreSQL stopped, PostgreSQL standing still.

Nothing is made and nothing destroyed, VMs run on, everything says so, and work resumes by itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.suite import Suite
from tests.e2e.waiting import Stopwatch, until
from tests.support import postgres

pytestmark = pytest.mark.e2e

# Tries to reach the store that fail after the session has ended: many cycles' time.
TRIES = 5
LOST = "session lost, every lock with it"
TRYING = "session is not being refreshed"


@dataclass
class Store:
    """A store that can be taken away, and what is said of it then."""

    suite: Suite
    take_away: Callable[[], object]
    give_back: Callable[[], object]
    words: str


def on_sqlite(suite: Suite) -> Store:
    """Its runtime_service is killed."""

    def kill() -> None:
        suite.daemons["runtime"].kill()

    return Store(suite, kill, lambda: suite.serve("runtime"), "is out of reach")


def on_postgres(suite: Suite, server: postgres.Server, *, stands: bool) -> Store:
    """The database is stopped as a crash does it, or stands still with its connections open."""
    schema = "stands" if stands else "stopped"
    suite.configure("runtime", driver="postgres", options=server.options(schema=schema))
    if stands:
        return Store(suite, server.pause, server.resume, "")
    return Store(suite, lambda: server.stop(immediate=True), server.start, "database")


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[postgres.Server]:
    """A server of this file."""
    if (how := postgres.missing()) is not None:
        pytest.skip(how)
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["runtime_service killed", "PostgreSQL stopped", "PostgreSQL paused"])
def store(suite: Suite, request: pytest.FixtureRequest) -> Store:
    """One kind after the other."""
    if request.param == "runtime_service killed":
        return on_sqlite(suite)
    server = request.getfixturevalue("postgres_server")
    return on_postgres(suite, server, stands=request.param == "PostgreSQL paused")


@contextmanager
def away(store: Store) -> Iterator[None]:
    """Within the block nobody reaches it."""
    store.take_away()
    try:
        yield
    finally:
        store.give_back()


def test_nothing_is_made_or_destroyed_without_the_store_and_work_resumes_by_itself(
    store: Store,
) -> None:
    suite = store.suite
    for name in ("web", "calm"):
        suite.declare(name, 3)
    suite.serve_all()
    web, calm = suite.until_running("web", 3), suite.until_running("calm", 3)
    pids = {vm_id: suite.pid_of(vm) for vm_id, vm in (web | calm).items()}
    victim = next(iter(web))

    with away(store):
        os.kill(pids.pop(victim), signal.SIGKILL)
        suite.declare("web", 4)
        suite.declare("new", 1)
        until_said(suite, store.words)
        until_tried_in_vain(suite)
        assert folders(suite) == {*web, *calm}
        assert set(pids.values()) <= set(suite.vm_processes())
        watch = Stopwatch()

    after = suite.until_running("web", 4) | suite.until_running("calm", 3)
    suite.until_running("new", 1)
    watch.tell("from the store's return to everything being as declared")
    assert {vm_id: suite.pid_of(after[vm_id]) for vm_id in pids} == pids
    assert [each.vm_id for each in suite.events("", "", "VM_TERMINATING")] == [victim]
    assert len(suite.events("", "", "VM_CREATED")) == len(folders(suite)) + 1
    until(lambda: "unreachable" not in suite.command("info").stdout, "info says that all is well")


def until_said(suite: Suite, words: str) -> None:
    """Wait until every place says that the store is away: commands, presets, the log."""
    until(lambda: is_told_by_info(suite, words), "info names the service that does not answer")
    until(lambda: words in said_by_list(suite), "preset list says why")
    until(lambda: LOST in log(suite), "the log says that the session is lost")
    for preset in ("web", "calm"):
        until(lambda name=preset: suite.conditions(name), f"{preset} says why nothing is done")  # type: ignore[misc]
    listed = until(lambda: suite.json_of("preset", "list")["presets"], "the list is whole again")
    assert {view["name"] for view in listed} == {"web", "calm", "new"}


def is_told_by_info(suite: Suite, words: str) -> bool:
    """Whether the runtime service stands as unreachable in `vmshepherd info`."""
    backends = suite.json_of("info")["backends"]
    runtime = next(each for each in backends if each["name"] == "runtime")
    return not runtime.get("reachable") and words in runtime["error"]


def said_by_list(suite: Suite) -> str:
    """All that `vmshepherd preset list` prints."""
    done = suite.command("preset", "list")
    return done.stdout + done.stderr


def until_tried_in_vain(suite: Suite) -> None:
    """Wait until the session has ended and several more tries have failed."""
    tried = log(suite).count(TRYING)
    until(lambda: log(suite).count(TRYING) >= tried + TRIES, "it goes on trying in vain")


def log(suite: Suite) -> str:
    """Of the orchestrator."""
    return suite.daemons["orchestrator"].said()


def folders(suite: Suite) -> set[str]:
    """Ids of the VMs that have a folder."""
    return {path.name for path in suite.vms_folder.iterdir() if path.name[0] != "."}
