"""No space for the store: presets say so, no VM is made or destroyed, and it heals with space."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests.e2e import linux
from tests.e2e.suite import Suite
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

# Longer than the session lives whose refreshes cannot be stored.
LONG_ENOUGH = timedelta(seconds=8)
MOUNT = 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"'


def test_a_full_disk_stops_all_changes_destroys_nothing_and_heals(suite: Suite) -> None:
    suite.configure("runtime", options={"path": "disk/store.sqlite"})
    suite.declare("web", 3)
    use_up, give_back, words = small_disk(suite)
    suite.serve_all()
    before = suite.until_running("web", 3)
    pids = {vm_id: suite.pid_of(vm) for vm_id, vm in before.items()}

    use_up()
    suite.declare("web", 4)
    until(lambda: words in sentences(suite), f"web says: {words}")
    victim, pid = pids.popitem()
    os.kill(pid, signal.SIGKILL)
    full_since = suite.preset("web").last_cycle_time.ToDatetime()
    until(
        lambda: suite.preset("web").last_cycle_time.ToDatetime() - full_since > LONG_ENOUGH,
        "cycles go on",
    )
    # What cannot be written down is not done.
    assert {path.name for path in suite.vms_folder.iterdir() if path.name[0] != "."} == set(before)
    assert set(pids.values()) <= set(suite.vm_processes())
    assert words in sentences(suite)

    give_back()
    after = suite.until_running("web", 4)
    assert {vm_id: suite.pid_of(after[vm_id]) for vm_id in pids} == pids
    assert [each.vm_id for each in suite.events("web", "", "VM_TERMINATED")] == [victim]


def sentences(suite: Suite) -> str:
    """All that the preset says of why it is as it is."""
    return " ".join(suite.conditions("web").values())


def small_disk(suite: Suite) -> tuple[Callable[[], None], Callable[[], None], str]:
    """A runtime_service whose disk is small: how it is filled, how it is freed, what is then said.

    Where nobody may mount one, files that may not grow stand in for it.
    """
    disk = suite.folder / "disk"
    disk.mkdir()
    prefix = linux.with_own_mounts()
    if prefix is None:
        return files_that_cannot_grow(suite.serve("runtime").pid, disk)
    daemon = suite.serve("runtime", before=[*prefix, "sh", "-c", MOUNT, str(disk)])
    # Mounted where it alone sees it.
    filler = Path(f"/proc/{daemon.pid}/root{disk}/filler")
    return lambda: fill(filler), filler.unlink, "no space is left"


def files_that_cannot_grow(
    pid: int, disk: Path
) -> tuple[Callable[[], None], Callable[[], None], str]:
    """A limit on the size of files, set when it is asked for."""
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)

    def stop_growth() -> None:
        largest = max(path.stat().st_size for path in disk.iterdir())
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, limits[1]))

    def let_grow() -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

    return stop_growth, let_grow, "fails to read or write"


def fill(path: Path) -> None:
    """Take all space that is left."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
