"""What an operator asks for, by the command: pauses, terminations, approvals, explanations."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.suite import Suite
from tests.e2e.waiting import until
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase

# One suite for all of them, each with a preset of its own.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("operator")]

SAID_NO = 1
NOT_FOUND = 3


def test_a_paused_preset_is_left_alone_until_it_is_resumed(shared_suite: Suite) -> None:
    suite = shared_suite
    suite.declare("paused", 2)
    before = suite.until_running("paused", 2)
    done = suite.command("preset", "pause", "paused", "--reason", "looking at it")
    assert done.returncode == 0, done.stderr
    os.kill(suite.pid_of(next(iter(before.values()))), signal.SIGKILL)
    suite.until_condition("paused", "PAUSED", "looking at it")
    reconcile(suite, "paused")
    assert suite.preset("paused").phase == PresetPhase.PRESET_PHASE_PAUSED
    assert len(suite.events("paused", "", "VM_CREATING")) == 2
    assert suite.events("paused", "", "VM_TERMINATING") == []

    assert suite.command("preset", "resume", "paused").returncode == 0
    after = suite.until_running("paused", 2)
    assert len(set(after) - set(before)) == 1


def test_creating_alone_can_be_paused(shared_suite: Suite) -> None:
    suite = shared_suite
    suite.declare("frozen", 2)
    before = suite.until_running("frozen", 2)
    done = suite.command("preset", "pause", "frozen", "--process", "create")
    assert done.returncode == 0, done.stderr
    victim = next(iter(before.values()))
    os.kill(suite.pid_of(victim), signal.SIGKILL)
    # The dead one is cleared away, and none is made in its place.
    until(lambda: set(suite.running("frozen")) == set(before) - {victim.vm_id}, "one is left")
    suite.until_condition("frozen", "PAUSED", "create")
    reconcile(suite, "frozen")
    assert len(suite.vms("frozen")) == 1
    assert suite.command("preset", "resume", "frozen").returncode == 0
    suite.until_running("frozen", 2)


def test_a_vm_that_an_operator_terminates_is_gone_and_replaced(shared_suite: Suite) -> None:
    suite = shared_suite
    suite.declare("chosen", 2)
    before = suite.until_running("chosen", 2)
    victim = next(iter(before))
    done = suite.command("vm", "terminate", victim, "--reason", "it is odd", "--yes")
    assert done.returncode == 0, done.stderr
    until(lambda: victim not in {vm.vm_id for vm in suite.vms("chosen")}, "the VM is gone")
    after = suite.until_running("chosen", 2)
    assert set(before) - set(after) == {victim}
    (event,) = suite.events("chosen", "", "VM_TERMINATING")
    assert (event.vm_id, event.reason) == (victim, "OPERATOR")
    assert "it is odd" in event.message
    assert not (suite.vms_folder / victim).exists()


def test_a_vm_of_another_preset_and_one_that_never_was_are_refused(shared_suite: Suite) -> None:
    suite = shared_suite
    suite.declare("mine", 1)
    suite.declare("theirs", 1)
    (theirs,) = suite.until_running("theirs", 1)
    suite.until_running("mine", 1)
    done = suite.command("vm", "terminate", theirs, "--preset", "mine", "--yes")
    assert done.returncode == SAID_NO
    assert "belongs to preset theirs" in done.stderr
    assert suite.command("vm", "terminate", "no-such-vm", "--yes").returncode == NOT_FOUND
    reconcile(suite, "mine", "theirs")
    assert set(suite.running("theirs")) == {theirs}
    assert suite.events("theirs", "", "VM_TERMINATING") == []


def test_a_slip_in_the_count_is_not_obeyed_and_a_great_step_waits_for_approval(
    shared_suite: Suite,
) -> None:
    suite = shared_suite
    suite.declare("typo", 3)
    before = suite.until_running("typo", 3)
    for slip in (1000, 0):
        suite.declare("typo", slip)
        suite.until_condition("typo", "COUNT_NEEDS_APPROVAL", f"to {slip}")
        reconcile(suite, "typo")
        assert set(suite.running("typo")) == set(before)

    suite.declare("typo", 12)
    sentence = suite.until_condition("typo", "COUNT_NEEDS_APPROVAL", "to 12")
    assert "vmshepherd preset reconcile typo --approve-count" in sentence
    done = suite.command("preset", "reconcile", "typo", "--approve-count")
    assert done.returncode == 0, done.stderr
    assert set(before) < set(suite.until_running("typo", 12))
    assert len(suite.events("typo", "", "VM_CREATED")) == 12


def test_explain_tells_the_story_of_a_vm_that_is_gone(shared_suite: Suite) -> None:
    suite = shared_suite
    suite.declare("story", 1)
    (victim,) = suite.until_running("story", 1).values()
    there = suite.json_of("vm", "explain", victim.vm_id)
    assert there["vm"]["vmId"] == victim.vm_id
    os.kill(suite.pid_of(victim), signal.SIGKILL)
    until(lambda: victim.vm_id not in {vm.vm_id for vm in suite.vms("story")}, "it is gone")
    suite.until_running("story", 1)
    gone = suite.json_of("vm", "explain", victim.vm_id)
    kinds = [event["kind"] for event in gone["events"]]
    assert kinds[0] == "VM_CREATED"
    assert "VM_TERMINATING" in kinds
    text = suite.command("vm", "explain", victim.vm_id).stdout
    assert "SIGKILL" in text
    assert suite.command("vm", "explain", "no-such-vm").returncode == NOT_FOUND


def test_the_vms_of_a_removed_preset_run_on_and_are_taken_back_with_it(
    shared_suite: Suite,
) -> None:
    suite = shared_suite
    path = suite.declare("absent", 2)
    before = {vm_id: suite.pid_of(vm) for vm_id, vm in suite.until_running("absent", 2).items()}
    path.unlink()
    removed = PresetPhase.PRESET_PHASE_REMOVED
    until(lambda: suite.preset("absent").phase == removed, "the preset is told as removed")
    assert set(before.values()) <= set(suite.vm_processes())

    suite.declare("absent", 2)
    after = {vm_id: suite.pid_of(vm) for vm_id, vm in suite.until_running("absent", 2).items()}
    assert after == before
    assert suite.events("absent", "", "VM_TERMINATING") == []


def test_a_plan_says_what_would_be_done_and_does_nothing(shared_suite: Suite) -> None:
    suite = shared_suite
    suite.declare("planned", 1)
    suite.until_running("planned", 1)
    assert suite.command("preset", "plan", "planned", "--detailed-exitcode").returncode == 0
    assert suite.command("preset", "pause", "planned", "--process", "replace").returncode == 0
    (vm,) = suite.running("planned").values()
    os.kill(suite.pid_of(vm), signal.SIGKILL)
    suite.until_condition("planned", "PAUSED")
    plan = suite.json_of("preset", "plan", "planned")["plan"]
    assert "PAUSED" in {each["code"] for each in plan["refusals"]}
    assert suite.events("planned", "", "VM_TERMINATING") == []


def reconcile(suite: Suite, *presets: str) -> None:
    """Wait for two whole cycles: what they do not do is not being done."""
    for _ in range(2):
        done = suite.command("preset", "reconcile", *presets, "--wait")
        assert done.returncode == 0, done.stderr
