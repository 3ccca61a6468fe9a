"""kill -9 of the whole suite in the middle of creating 50 VMs, at twenty moments."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from tests.e2e.suite import Suite
from tests.e2e.waiting import Stopwatch, until

pytestmark = pytest.mark.e2e

COUNT = 50
REPETITIONS = 20


@pytest.mark.parametrize("repetition", range(REPETITIONS))
def test_a_suite_killed_while_it_creates_50_vms_ends_with_exactly_50(
    suite: Suite, repetition: int
) -> None:
    small = {"flavors": {"tiny": {"command": ["sleep", "3600"]}}, "port": suite.ports["vms"]}
    # One by one, so that any moment is as likely as another; or side by side, as usual.
    provider = {"driver": "process", "options": small, "parallel_calls": 1 + repetition % 2 * 49}
    suite.configure("iaas", providers={"process": provider})
    # Whoever waited for the end of the killed one's session would wait for ten minutes.
    suite.configure("orchestrator", session={"ttl": "10m"})
    suite.declare("many", COUNT, flavor="tiny", healthcheck=None)
    # Evenly over the whole of it: after none, after a few, after nearly all of them.
    enough = repetition * COUNT // REPETITIONS
    daemon = suite.start()
    until(lambda: made(suite) >= enough, f"{enough} VMs are made", pause=0.0005)
    time.sleep(random.Random(repetition).uniform(0, 0.01))
    daemon.kill()
    left = made(suite)
    print(f"measured: killed when {left} of {COUNT} were made")  # noqa: T201

    watch = Stopwatch()
    suite.up()
    watch.tell("from start to managing again")
    vms = suite.until_running("many", COUNT)
    watch.tell("from start to exactly 50 VMs")
    places = Counter(path.name for path in suite.vm_processes().values())
    assert places == dict.fromkeys(vms, 1)
    assert {path.name for path in suite.vms_folder.iterdir() if path.name[0] != "."} == set(vms)
    assert len({vm.request_id for vm in vms.values()}) == COUNT
    assert suite.events("many", "", "VM_TERMINATING") == []


def made(suite: Suite) -> int:
    """How many VMs have a folder."""
    if not suite.vms_folder.exists():
        return 0
    return sum(1 for path in suite.vms_folder.iterdir() if path.name[0] != ".")
