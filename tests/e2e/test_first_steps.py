"""What a new user does first: start it, break something, change a number, stop it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from tests.e2e import linux
from tests.e2e.daemon import Daemon
from tests.e2e.suite import Suite
from tests.e2e.waiting import Stopwatch, until

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_examples_run_and_each_web_server_answers_at_its_own_address(suite: Suite) -> None:
    copy_examples(suite)
    watch = Stopwatch()
    suite.up("--ephemeral")
    counts = {"cache": 2, "web": 3, "worker": 2}
    vms = {name: suite.until_running(name, count) for name, count in counts.items()}
    watch.tell("from nothing to all VMs of three presets")
    addresses = [vm.addresses[0] for vm in vms["web"].values()]
    assert len(set(addresses)) == 3
    assert all(address.startswith("127.") and address != "127.0.0.1" for address in addresses)
    answers = {linux.body_of(address, suite.ports["vms"]).strip() for address in addresses}
    assert answers == {vm.name for vm in vms["web"].values()}
    assert len(suite.vm_processes()) >= 7


def test_a_killed_vm_is_replaced_by_one_that_answers_and_the_journal_tells_why(
    suite: Suite,
) -> None:
    suite.declare("web", 3)
    suite.up()
    before = suite.until_running("web", 3)
    victim = next(iter(before.values()))
    watch = Stopwatch()
    os.kill(suite.pid_of(victim), signal.SIGKILL)

    def answers() -> set[str]:
        fresh = {vm.addresses[0] for vm in suite.vms("web") if vm.vm_id not in before}
        return {linux.body_of(address, suite.ports["vms"]) for address in fresh}

    until(answers, "a new VM answers")
    watch.tell("from kill -9 of a VM to a new one that answers")
    after = suite.until_running("web", 3)
    assert set(before) - set(after) == {victim.vm_id}
    assert not (suite.vms_folder / victim.vm_id).exists()
    trail = suite.events("web", victim.vm_id)
    death = next(each for each in trail if each.kind == "VM_STATUS" and "TERMINATED" in each.reason)
    assert "SIGKILL" in death.message
    assert [each.reason for each in trail if each.kind == "VM_TERMINATING"] == ["DEAD"]
    born = (set(after) - set(before)).pop()
    (creating,) = [
        each
        for each in suite.events("web", "", "VM_CREATING")
        if each.evidence["request_id"] == after[born].request_id
    ]
    assert creating.reason == "MISSING"
    assert "2 of 3" in creating.message


def test_a_count_from_3_to_5_to_2_is_followed_exactly(suite: Suite) -> None:
    suite.declare("web", 3)
    suite.up()
    three = suite.until_running("web", 3)
    suite.declare("web", 5)
    five = suite.until_running("web", 5)
    assert set(three) < set(five)
    suite.declare("web", 2)
    two = suite.until_running("web", 2)
    assert set(two) < set(five)
    assert {path.name for path in suite.vm_processes().values()} == set(two)
    # Nothing was made or destroyed beyond that, not even for a moment.
    kinds = [each.kind for each in suite.events("web")]
    assert kinds.count("VM_CREATED") == kinds.count("VM_CREATING") == 5
    assert kinds.count("VM_TERMINATED") == kinds.count("VM_TERMINATING") == 3
    reasons = {each.reason for each in suite.events("web", "", "VM_TERMINATING")}
    assert reasons == {"SURPLUS"}


def test_an_ephemeral_suite_takes_its_vms_with_it(suite: Suite) -> None:
    suite.declare("web", 3)
    daemon = suite.up("--ephemeral")
    suite.until_running("web", 3)
    assert daemon.stop() == 0
    assert suite.vm_processes() == {}
    assert "3 VMs removed." in daemon.said()


def test_vms_run_on_without_their_suite_and_are_found_by_the_next(suite: Suite) -> None:
    suite.declare("web", 3)
    daemon = suite.up()
    before = {vm_id: suite.pid_of(vm) for vm_id, vm in suite.until_running("web", 3).items()}
    assert daemon.stop() == 0
    assert "Its VMs go on running." in daemon.said()
    assert set(before.values()) <= set(suite.vm_processes())
    watch = Stopwatch()
    suite.up()
    watch.tell("from start to managing what was there")
    after = {vm_id: suite.pid_of(vm) for vm_id, vm in suite.until_running("web", 3).items()}
    assert after == before
    assert len(suite.events("web", "", "VM_CREATED")) == 3


def test_a_second_suite_of_the_same_file_is_refused_and_harms_nobody(suite: Suite) -> None:
    suite.declare("web", 2)
    first = suite.up()
    before = suite.until_running("web", 2)
    again = Daemon(first.command, log=suite.folder / "again.log", cwd=suite.folder)
    assert again.wait() != 0
    assert "is in use by process" in again.said()
    assert str(first.pid) in again.said()
    assert first.is_alive
    assert set(suite.until_running("web", 2)) == set(before)


def copy_examples(suite: Suite) -> None:
    """The examples with other ports and a state of their own; nothing else differs."""
    config = yaml.safe_load((EXAMPLES / "vmshepherd.yaml").read_text())
    shutil.copytree(EXAMPLES / "presets.d", suite.presets, dirs_exist_ok=True)
    port = suite.ports["vms"]
    assert config["iaas"]["providers"]["process"]["options"] == {"port": 8080}
    config["iaas"]["providers"]["process"]["options"]["port"] = port
    for path in suite.presets.iterdir():
        path.write_text(path.read_text().replace("port: 8080", f"port: {port}"))
    for service, section in suite.config.items():
        if isinstance(section, dict) and "listen" in section:
            config.setdefault(service, {})["listen"] = section["listen"]
    suite.config = {**config, "state_dir": "state"}
