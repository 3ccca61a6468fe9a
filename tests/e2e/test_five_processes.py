"""Each service a process of its own, and each of them killed: the others go on, nothing is lost."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.suite import Suite
from tests.e2e.waiting import Stopwatch, until

pytestmark = pytest.mark.e2e


def test_vms_outlive_a_killed_iaas_service_and_are_found_again(suite: Suite) -> None:
    suite.declare("web", 3)
    suite.serve_all()
    before = {vm_id: suite.pid_of(vm) for vm_id, vm in suite.until_running("web", 3).items()}
    suite.daemons["iaas"].kill()
    until(lambda: suite.conditions("web"), "web says that its cloud cannot be asked")
    assert set(before.values()) <= set(suite.vm_processes())
    victim, pid = before.popitem()
    os.kill(pid, signal.SIGKILL)

    suite.serve("iaas")
    until(lambda: victim not in {vm.vm_id for vm in suite.vms("web")}, "the killed VM is gone")
    after = suite.until_running("web", 3)
    assert {vm_id: suite.pid_of(after[vm_id]) for vm_id in before} == before
    assert [each.vm_id for each in suite.events("web", "", "VM_TERMINATING")] == [victim]
    assert len(suite.events("web", "", "VM_CREATED")) == 4


def test_managing_goes_on_after_a_killed_runtime_service_under_no_older_token(
    suite: Suite,
) -> None:
    suite.declare("web", 3)
    suite.serve_all()
    before = suite.until_running("web", 3)
    token = suite.preset("web").fencing_token
    suite.daemons["runtime"].kill()
    # Without authority nothing is done, and nothing is forgotten either.
    suite.declare("web", 4)
    until(lambda: suite.conditions("web"), "web says that nothing can be remembered")

    suite.serve("runtime")
    after = suite.until_running("web", 4)
    assert set(before) < set(after)
    assert suite.preset("web").fencing_token >= token
    assert len(suite.events("web", "", "VM_CREATED")) == 4
    assert suite.events("web", "", "VM_TERMINATING") == []


def test_managing_goes_on_from_the_last_copy_without_preset_service(suite: Suite) -> None:
    suite.declare("web", 3)
    suite.serve_all()
    before = suite.until_running("web", 3)
    suite.daemons["preset"].kill()
    victim = next(iter(before.values()))
    os.kill(suite.pid_of(victim), signal.SIGKILL)
    until(lambda: set(suite.running("web")) - set(before), "the killed VM is replaced")
    assert len(suite.until_running("web", 3)) == 3

    suite.declare("web", 2)
    suite.serve("preset")
    suite.until_running("web", 2)
    assert suite.preset("web").count == 2


def test_an_orchestrator_killed_while_it_creates_is_followed_by_one_that_ends_with_exactly_that(
    suite: Suite,
) -> None:
    count = 20
    options = {"port": suite.ports["vms"], "flavors": {"tiny": {"command": ["sleep", "3600"]}}}
    provider = {"driver": "process", "options": options, "parallel_calls": 1}
    suite.configure("iaas", providers={"process": provider})
    suite.serve_all()
    suite.declare("many", count, flavor="tiny", healthcheck=None)
    until(lambda: len(folders(suite)) >= 5, "some of them are made", pause=0.001)
    suite.daemons["orchestrator"].kill()
    watch = Stopwatch()
    suite.serve("orchestrator")
    vms = suite.until_running("many", count)
    watch.tell("from kill -9 of an orchestrator in the middle of creating to all VMs (ttl 6 s)")
    assert set(folders(suite)) == set(vms)
    assert len(suite.vm_processes()) == count
    assert suite.preset("many").open_intents == 0
    assert suite.events("many", "", "VM_TERMINATING") == []


def test_a_second_orchestrator_takes_over_what_the_killed_one_held(suite: Suite) -> None:
    suite.declare("web", 2)
    suite.serve_all()
    before = suite.until_running("web", 2)
    first = suite.preset("web")
    suite.daemons["orchestrator"].kill()
    watch = Stopwatch()
    suite.serve("orchestrator")
    until(lambda: suite.preset("web").fencing_token > first.fencing_token, "another one holds it")
    watch.tell("from kill -9 of an orchestrator to its presets being held again (ttl 6 s)")
    assert suite.preset("web").owner != first.owner
    assert set(suite.until_running("web", 2)) == set(before)
    assert suite.events("web", "", "VM_TERMINATING") == []


def folders(suite: Suite) -> list[str]:
    """Ids of the VMs that have a folder."""
    return [path.name for path in suite.vms_folder.iterdir() if path.name[0] != "."]
