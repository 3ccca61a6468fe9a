"""One VM that is ill, or put to sleep: it alone is judged, and nobody else is touched."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.suite import HTTP_CHECK, Suite
from tests.e2e.waiting import Stopwatch, until
from vmshepherd.orchestrator.v1.view_pb2 import VmStatus

pytestmark = pytest.mark.e2e

MOODY = Path(__file__).parent / "guests" / "moody.py"


def test_a_vm_that_accepts_and_hangs_is_replaced_first_and_then_destroyed_alone(
    suite: Suite,
) -> None:
    moody = {"command": [sys.executable, "-I", "-S", str(MOODY)]}
    options = {"port": suite.ports["vms"], "flavors": {"moody": moody}}
    suite.configure("iaas", providers={"process": {"driver": "process", "options": options}})
    check = {**HTTP_CHECK, "port": suite.ports["vms"], "read_timeout": "500ms"}
    suite.declare("web", 4, flavor="moody", healthcheck=check)
    suite.up()
    before = suite.until_running("web", 4)
    victim = next(iter(before))
    watch = Stopwatch()
    (suite.vms_folder / victim / "hang").touch()
    until(lambda: victim not in {vm.vm_id for vm in suite.vms("web")}, "the one that hangs is gone")
    watch.tell("from hanging to being replaced and gone")
    after = suite.until_running("web", 4)

    assert set(before) - set(after) == {victim}
    events = suite.events("web")
    destroyed = [each for each in events if each.kind == "VM_TERMINATING"]
    assert [(each.vm_id, each.reason) for each in destroyed] == [(victim, "UNHEALTHY")]
    # The new one was there before the old one went.
    (made,) = [each for each in events if each.kind == "VM_CREATED" and each.vm_id not in before]
    assert made.vm_id in after
    assert made.sequence < destroyed[0].sequence
    # What a single probe said of one that still boots is no judgement.
    judged = {e.vm_id for e in events if e.reason == "UNHEALTHY" and e.kind != "VM_PROBE"}
    assert judged == {victim}


def test_a_vm_that_a_person_stops_is_parked_and_goes_on_when_it_is_started_again(
    suite: Suite,
) -> None:
    suite.declare("web", 2)
    suite.up()
    before = suite.until_running("web", 2)
    sleeper, other = before.values()
    pid = suite.pid_of(sleeper)
    os.kill(pid, signal.SIGSTOP)

    def status() -> VmStatus.ValueType:
        return {vm.vm_id: vm.status for vm in suite.vms("web")}[sleeper.vm_id]

    until(lambda: status() == VmStatus.VM_STATUS_STOPPED, "the stopped VM is parked")
    # Other work on the preset goes on around it: it counts, and is no candidate to go.
    suite.declare("web", 3)
    until(lambda: len(suite.running("web")) == 2, "a third VM runs beside it")
    os.kill(suite.pid_of(other), signal.SIGKILL)
    until(lambda: set(suite.running("web")).isdisjoint(before), "the killed one is replaced")
    until(lambda: len(suite.running("web")) == 2, "and no more than that")
    assert status() == VmStatus.VM_STATUS_STOPPED

    os.kill(pid, signal.SIGCONT)
    after = suite.until_running("web", 3)
    assert suite.pid_of(after[sleeper.vm_id]) == pid
    destroyed = suite.events("web", "", "VM_TERMINATING")
    assert [each.vm_id for each in destroyed] == [other.vm_id]
