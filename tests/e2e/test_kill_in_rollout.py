"""kill -9 of the whole suite in the middle of a rollout, again and again."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from tests.e2e.suite import Suite
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

COUNT = 4
KILLS = 4
POLICY = {
    "replace": "rolling",
    "canary": 1,
    "max_surge": 2,
    "min_healthy_time": "500ms",
    "startup_grace": "5s",
    "max_deletions_per_cycle": 2,
}


def test_a_rollout_goes_on_to_its_end_however_often_its_suite_is_killed(suite: Suite) -> None:
    chance = random.Random(7)
    suite.configure("orchestrator", interval="500ms", soon="250ms")
    suite.declare("web", COUNT, userdata="first", policy=POLICY)
    suite.up()
    before = suite.until_running("web", COUNT)
    suite.declare("web", COUNT, userdata="second", policy=POLICY)
    for turn in range(KILLS):
        kinds = ("VM_CREATED", "VM_CREATING", "VM_TERMINATING")
        # Evenly over the rollout, at another moment of each step.
        enough = COUNT * 2 + turn * 2 + 1
        until(lambda: len(suite.events("web", "", *kinds)) >= enough, "it has begun")  # noqa: B023
        time.sleep(chance.uniform(0, 0.3))
        suite.daemons["up"].kill()
        # The VMs serve without it.
        assert len(folders(suite)) >= COUNT
        suite.up()
    until(lambda: not suite.preset("web").outdated, "none is of the former spec")
    after = suite.until_running("web", COUNT)
    assert not set(before) & set(after)
    assert folders(suite) == dict.fromkeys(after, 1)
    assert {path.name for path in suite.vms_folder.iterdir() if path.name[0] != "."} == set(after)
    assert len({vm.request_id for vm in after.values()}) == COUNT


def folders(suite: Suite) -> Counter[str]:
    """How many processes each VM has."""
    return Counter(path.name for path in suite.vm_processes().values())
