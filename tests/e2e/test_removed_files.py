"""Preset files that vanish, come back, or are written over in the middle of a rollout."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.suite import Suite
from tests.e2e.waiting import until
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase

pytestmark = pytest.mark.e2e

SOON = {"on_remove": "delete", "removal_grace": "6s", "max_deletions_per_cycle": 1}
# What people write by mistake, into files that are rolled out at that moment.
EDITS: dict[str, Callable[[str], str]] = {
    "broken": lambda text: f"{text}\ncount: [",
    "empty": lambda _: "",
    "zero": lambda text: text.replace("count: 2", "count: 0"),
    "nowhere": lambda text: f"{text}\niaas: nowhere\n",
    "unmanaged": lambda text: f"{text}\nunmanaged: true\n",
}
# Edits that are understood: nothing goes for them. A broken file leaves the rollout as it was.
NOTICED = {"zero": "COUNT_NEEDS_APPROVAL", "nowhere": "NOT_FOUND", "unmanaged": "UNMANAGED"}
HALTED = ("nowhere", "unmanaged")
LATER = {**SOON, "removal_grace": "1h"}


def test_vms_of_a_removed_file_go_one_after_the_other_when_its_grace_is_over(suite: Suite) -> None:
    path = suite.declare("gone", 3, policy=SOON)
    suite.declare("kept", 1)
    suite.up()
    before = suite.until_running("gone", 3)
    suite.until_running("kept", 1)
    path.unlink()
    sentence = suite.until_condition("gone", "PRESET_REMOVED", "VMs run on")
    assert suite.preset("gone").phase == PresetPhase.PRESET_PHASE_REMOVED
    told = suite.command("preset", "explain", "gone").stdout
    until(lambda: not suite.vms("gone"), "none is left")
    ends = suite.events("gone", "", "VM_TERMINATING")
    assert {each.vm_id for each in ends} == set(before)
    assert {each.reason for each in ends} == {"PRESET_REMOVED"}
    assert "policy.on_remove" in ends[0].evidence["clause"]
    removed = next(e for e in suite.events("gone", "", "CONDITION_SET") if "REMOVED" in e.reason)
    times = [each.time.ToDatetime() for each in ends]
    assert (times[0] - removed.time.ToDatetime()).total_seconds() >= 5
    # In cycles of their own.
    assert len(set(times)) == 3
    assert sentence in told
    assert {path.name for path in suite.vm_processes().values()} == set(suite.running("kept"))


def test_a_file_that_comes_back_in_time_finds_its_vms_untouched(suite: Suite) -> None:
    path = suite.declare("back", 2, policy=LATER)
    suite.declare("kept", 1)
    suite.up()
    before = {vm_id: suite.pid_of(vm) for vm_id, vm in suite.until_running("back", 2).items()}
    for _ in range(3):
        path.unlink()
        suite.until_condition("back", "PRESET_REMOVED")
        suite.declare("back", 2, policy=LATER)
        suite.until_running("back", 2)
    after = suite.running("back")
    assert {vm_id: suite.pid_of(vm) for vm_id, vm in after.items()} == before
    assert suite.events("back", "", "VM_TERMINATING") == []
    assert len(suite.events("back", "", "VM_CREATED")) == 2


def test_many_files_that_vanish_at_once_wait_for_a_person(suite: Suite) -> None:
    paths = [suite.declare(name, 1, policy=SOON) for name in ("one", "two")]
    suite.declare("three", 1)
    suite.up()
    [vm] = suite.until_running("one", 1)
    suite.until_running("two", 1)
    for path in paths:
        path.unlink()
    sentence = suite.until_condition("one", "REMOVALS_NEED_APPROVAL", "2 of 3")
    assert "vmshepherd preset reconcile one --approve-count" in sentence
    suite.until_condition("two", "REMOVALS_NEED_APPROVAL")
    plan = suite.json_of("preset", "plan", "one")["plan"]
    assert not plan.get("steps")
    asked = next(r for r in plan["refusals"] if r["code"] == "REMOVALS_NEED_APPROVAL")
    assert asked["clause"] == "orchestrator.removals.percent"
    until(lambda: is_past_grace(suite, "one"), "their grace is over")
    assert suite.vms("one")
    assert suite.vms("two")
    assert suite.command("preset", "reconcile", "one", "--approve-count").returncode == 0
    until(lambda: vm not in {each.vm_id for each in suite.vms()}, "the approved one goes")
    reconcile(suite, "two")
    assert len(suite.vms("two")) == 1
    assert suite.events("two", "", "VM_TERMINATING") == []


def test_careless_edits_during_rollouts_destroy_nothing_and_are_taken_back(suite: Suite) -> None:
    policy = {"replace": "rolling", "min_healthy_time": "2s", "startup_grace": "1s"}
    for name in EDITS:
        suite.declare(name, 2, policy=policy)
    suite.up()
    for name in EDITS:
        suite.until_running(name, 2)
    texts = {
        name: suite.declare(name, 2, userdata="second", policy=policy).read_text() for name in EDITS
    }
    for name, change in EDITS.items():
        suite.until_condition(name, "ROLLOUT_WAITING")
        suite.write_preset(name, change(texts[name]))
    for name in EDITS:
        until(lambda: is_noticed(suite, name), f"{name} is noticed")  # noqa: B023
    ends = {name: len(suite.events(name, "", "VM_TERMINATING")) for name in HALTED}
    for name in HALTED:
        reconcile(suite, name)
    assert {name: len(suite.events(name, "", "VM_TERMINATING")) for name in HALTED} == ends
    for name, text in texts.items():
        suite.write_preset(name, text)
    after = set[str]()
    for name in EDITS:
        until(lambda: not suite.preset(name).outdated, f"{name} is rolled out")  # noqa: B023
        after |= set(suite.until_running(name, 2))
        # Two, their replacements, and none for the edit.
        assert len(suite.events(name, "", "VM_CREATED")) == 4
    assert {place.name for place in suite.vm_processes().values()} == after


def is_noticed(suite: Suite, edit: str) -> bool:
    view = suite.preset(edit)
    return bool(view.findings) or NOTICED.get(edit) in {each.code for each in view.conditions}


def is_past_grace(suite: Suite, preset: str) -> bool:
    """Whether a whole cycle was done after the time at which it would have been destroyed."""
    removed = next(
        each
        for each in suite.events(preset, "", "CONDITION_SET")
        if each.reason == "REMOVALS_NEED_APPROVAL"
    )
    reconcile(suite, preset)
    last = suite.preset(preset).last_cycle_time.ToDatetime()
    return (last - removed.time.ToDatetime()).total_seconds() > 7


def reconcile(suite: Suite, preset: str) -> None:
    """Wait for two whole cycles: what they do not do is not being done."""
    for _ in range(2):
        done = suite.command("preset", "reconcile", preset, "--wait")
        assert done.returncode == 0, done.stderr
