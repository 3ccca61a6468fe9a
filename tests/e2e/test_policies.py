"""Rollouts, repair, study, protection, fallback and back-test, with real processes as VMs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.e2e.probing import using
from tests.e2e.suite import HTTP_CHECK, Suite
from tests.e2e.waiting import until
from vmshepherd.orchestrator.v1.view_pb2 import VmStatus, VmView

# One suite for all of them, each with presets of its own.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("policies")]

MOODY = Path(__file__).parent / "guests" / "moody.py"
SAID_NO = 1
PAST = timedelta(seconds=30)
# Quick, so that tests are; a busy machine needs seconds to start a web server.
QUICK = {"startup_grace": "3s", "min_healthy_time": "1s", "max_deletions_per_cycle": 5}


def guest(version: int, *, heals: bool = True) -> str:
    """User data: a web server that hangs when told to; with `heals` a reboot ends that."""
    wake = "rm -f hang" if heals else ":"
    return f"#!/bin/sh\n# version {version}\n{wake}\nexec {sys.executable} -I -S {MOODY}\n"


# Nobody listens, and nothing dies.
MUTE = "#!/bin/sh\nexec sleep 3600\n"


def declare(suite: Suite, name: str, count: int, userdata: str, **policy: object) -> Path:
    check = {**HTTP_CHECK, "port": suite.ports["vms"], "read_timeout": "500ms"}
    check["min_failing_time"] = policy.pop("min_failing_time", check["min_failing_time"])
    policy = {**QUICK, **policy}
    return suite.declare(name, count, userdata=userdata, policy=policy, healthcheck=check)


@pytest.fixture(scope="module", name="here")
def _here(shared_suite: Suite) -> Suite:
    """The suite, with a preset that nothing happens to until the last of the tests."""
    declare(shared_suite, "patient", 2, guest(1), min_failing_time="5m")
    return shared_suite


def test_a_rollout_replaces_one_after_the_other_and_the_group_serves_throughout(
    here: Suite,
) -> None:
    declare(here, "rolling", 3, guest(1), replace="rolling")
    before = here.until_running("rolling", 3)
    with using(here, "rolling") as users:
        declare(here, "rolling", 3, guest(2), replace="rolling")
        here.until_condition("rolling", "ROLLOUT_WAITING")
        plan = here.json_of("preset", "plan", "rolling")["plan"]
        told = here.command("preset", "explain", "rolling").stdout
        until(lambda: not set(before) & set(here.running("rolling")), "the old ones are gone")
        after = here.until_running("rolling", 3)
    assert min(users.served) >= 3
    assert len(users.served) > 20
    assert not any(vm.outdated for vm in after.values())
    assert not set(before) & {path.name for path in here.vm_processes().values()}
    # One at a time, the first of them alone; each goes after its successor came.
    turns = [
        (each.kind, each.reason)
        for each in here.events("rolling", "", "VM_CREATED", "VM_TERMINATING")
    ]
    assert turns[3:] == [("VM_CREATED", ""), ("VM_TERMINATING", "OUTDATED")] * 3
    waiting = [each for each in plan["refusals"] if each["code"] == "ROLLOUT_WAITING"]
    assert all("policy.min_healthy_time" in each["clause"] for each in waiting)
    assert "rollout waiting" in told.lower().replace("_", " ")


def test_a_bad_release_stops_at_the_canary_and_reverting_it_heals(here: Suite) -> None:
    declare(here, "bad", 3, guest(1), replace="rolling")
    before = here.until_running("bad", 3)
    with using(here, "bad") as users:
        declare(here, "bad", 3, MUTE, replace="rolling")
        sentence = here.until_condition("bad", "ROLLOUT_STOPPED")
        settle(here, "bad")
        told = here.command("preset", "explain", "bad").stdout
        plan = here.json_of("preset", "plan", "bad")["plan"]
        assert set(before) <= set(here.running("bad"))
        declare(here, "bad", 3, guest(1), replace="rolling")
        assert set(here.until_running("bad", 3)) == set(before)
    assert min(users.served) >= 3
    assert "vmshepherd preset resume bad" in sentence
    assert "rollout stopped" in told
    assert "ROLLOUT_STOPPED" in {each["code"] for each in plan["refusals"]}
    touched = {each.vm_id for each in here.events("bad", "", "VM_TERMINATING")}
    assert not touched & set(before)


def test_a_vm_that_hangs_is_rebooted_and_is_the_same_vm_afterwards(here: Suite) -> None:
    declare(here, "curable", 2, guest(1), reboots=1)
    before = here.until_running("curable", 2)
    victim = next(iter(before.values()))
    pid = here.pid_of(victim)
    hang(here, victim)
    until(lambda: here.events("curable", victim.vm_id, "VM_REBOOTED"), "it is rebooted")
    after = here.until_running("curable", 2)
    assert set(after) == set(before)
    assert here.pid_of(after[victim.vm_id]) != pid
    [event] = here.events("curable", victim.vm_id, "VM_REBOOTING")
    assert (event.reason, event.evidence["clause"]) == ("UNHEALTHY", "policy.reboots")
    assert here.events("curable", "", "VM_TERMINATING") == []
    assert "vm rebooting" in here.command("vm", "explain", victim.vm_id).stdout


def test_a_vm_that_a_reboot_does_not_heal_is_replaced(here: Suite) -> None:
    declare(here, "incurable", 2, guest(1, heals=False), reboots=1)
    before = here.until_running("incurable", 2)
    victim = next(iter(before.values()))
    hang(here, victim)
    until(lambda: victim.vm_id not in ids(here, "incurable"), "it is gone")
    after = here.until_running("incurable", 2)
    assert set(before) - set(after) == {victim.vm_id}
    done = here.events("incurable", victim.vm_id, "VM_REBOOTING", "VM_TERMINATING")
    assert [each.kind for each in done] == ["VM_REBOOTING", "VM_TERMINATING"]


def test_a_failed_vm_is_kept_for_its_time_and_shown_so(here: Suite) -> None:
    declare(here, "studied", 2, guest(1), keep_failed=1, keep_failed_time="1h")
    before = here.until_running("studied", 2)
    victim = next(iter(before.values()))
    hang(here, victim)

    def kept() -> VmView | None:
        vms = {vm.vm_id: vm for vm in here.vms("studied")}
        vm = vms[victim.vm_id]
        return vm if vm.status == VmStatus.VM_STATUS_KEPT else None

    found = until(kept, "it is kept")
    told = here.command("vm", "explain", victim.vm_id).stdout
    assert found is not None
    assert found.HasField("kept_until_time")
    assert "KEPT" in told
    assert (here.vms_folder / victim.vm_id / "log").exists()
    # Its processes are there to be looked at, and two others serve.
    assert victim.vm_id in {path.name for path in here.vm_processes().values()}
    declare(here, "studied", 2, guest(1), keep_failed=1, keep_failed_time="1s")
    until(lambda: victim.vm_id not in ids(here, "studied"), "its study is over")
    after = here.until_running("studied", 2)
    assert set(before) - set(after) == {victim.vm_id}
    [end] = here.events("studied", victim.vm_id, "VM_TERMINATING")
    assert end.reason == "STUDY_OVER"


def test_a_protected_vm_is_left_alone_whatever_becomes_of_it(here: Suite) -> None:
    declare(here, "guarded", 2, guest(1), reboots=1)
    before = here.until_running("guarded", 2)
    dear, other = before.values()
    done = here.command("vm", "protect", dear.vm_id, "--reason", "it is dear to me")
    assert done.returncode == 0, done.stderr
    refused = here.command("vm", "terminate", dear.vm_id, "--yes")
    assert refused.returncode == SAID_NO
    assert "it is dear to me" in refused.stderr
    hang(here, dear)
    here.until_condition("guarded", "PROTECTED")
    declare(here, "guarded", 1, guest(2), replace="rolling")
    until(lambda: other.vm_id not in ids(here, "guarded"), "the other one goes")
    settle(here, "guarded")
    assert dear.vm_id in ids(here, "guarded")
    assert here.events("guarded", dear.vm_id, "VM_TERMINATING", "VM_REBOOTING") == []
    assert "protected" in here.command("vm", "explain", dear.vm_id).stdout
    assert here.command("vm", "unprotect", dear.vm_id).returncode == 0
    until(lambda: dear.vm_id not in ids(here, "guarded"), "it goes when nobody protects it")
    here.until_running("guarded", 1)


def test_what_cannot_be_made_of_the_first_flavor_is_made_of_the_next(suite: Suite) -> None:
    options = {"port": suite.ports["vms"], "flavors": {"web": {}}}
    suite.configure("iaas", providers={"process": {"driver": "process", "options": options}})
    name = "modest"
    suite.declare(name, 2, flavor=["huge", "web"], userdata=guest(1), policy=QUICK)
    suite.up()
    vms = suite.until_running(name, 2)
    assert {vm.flavor for vm in vms.values()} == {"web"}
    failed = suite.events(name, "", "CREATE_FAILED")
    assert {each.reason for each in failed} == {"FLAVOR_NOT_FOUND"}
    assert any("there is no flavor 'huge'" in each.message for each in failed)
    assert not any(vm.outdated for vm in vms.values())


def test_a_rash_policy_is_found_out_by_the_past_of_a_preset(here: Suite) -> None:
    patient = here.presets / "patient.yaml"
    victim = next(iter(here.until_running("patient", 2).values()))
    until(lambda: age(victim) > PAST, "its VMs are older than the past that is looked at")
    hang(here, victim)
    until(lambda: here.running("patient")[victim.vm_id].failures > 2, "its check goes on failing")
    (here.vms_folder / victim.vm_id / "hang").unlink()
    until(lambda: said(here, victim) == "HEALTHY", "its check passes again")

    timeline = here.folder / "patient.jsonl"
    recorded = here.command("policy", "record", "patient", "--since", f"{PAST.seconds}s")
    assert recorded.returncode == 0, recorded.stderr
    timeline.write_text(recorded.stdout)
    rash = hasty(patient, here.folder / "rash.yaml")
    asked = ("policy", "backtest", str(timeline), "--preset", str(rash), "--against", str(patient))
    done = here.command(*asked, "--fail-if-more", "--output", "json")
    assert done.returncode == SAID_NO, done.stderr
    assert json.loads(done.stdout)["isWorse"]
    told = here.command(*asked)
    assert told.returncode == 0, told.stderr
    assert victim.name in told.stdout or victim.vm_id in told.stdout
    assert "healthcheck.fall" in told.stdout
    again = here.command(*asked[:4], str(patient), *asked[5:], "--fail-if-more")
    assert again.returncode == 0, again.stdout


def hasty(patient: Path, file: Path) -> Path:
    """A file with the same preset, whose VMs go at the first failure."""
    preset = yaml.safe_load(patient.read_text())
    preset["healthcheck"] |= {"fall": 1, "min_failing_time": "0s"}
    preset["policy"] |= {"max_surge": 0, "startup_grace": "0s"}
    file.write_text(yaml.safe_dump({**preset, "name": "patient", "manage_interval": "1s"}))
    return file


def hang(suite: Suite, vm: VmView) -> None:
    """Let it accept and never answer."""
    (suite.vms_folder / vm.vm_id / "hang").touch()


def ids(suite: Suite, preset: str) -> set[str]:
    return {vm.vm_id for vm in suite.vms(preset)}


def age(vm: VmView) -> timedelta:
    return datetime.now(UTC) - vm.create_time.ToDatetime(UTC)


def said(suite: Suite, vm: VmView) -> str:
    """What its probe says now."""
    return suite.events(vm.preset, vm.vm_id, "VM_PROBE")[-1].reason


def settle(suite: Suite, preset: str) -> None:
    """Wait for two whole cycles: what they do not do is not being done."""
    for _ in range(2):
        done = suite.command("preset", "reconcile", preset, "--wait")
        assert done.returncode == 0, done.stderr
