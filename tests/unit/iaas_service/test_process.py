"""The `process` cloud, with real processes: it finds them again, and harms no other."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from iaas_service import marker
from iaas_service.domain import Changed, Spec, Vm, VmId, VmState
from iaas_service.drivers.process import ProcessCloud, ProcessOptions, folder, launch, proc
from iaas_service.drivers.process.options import Flavor
from iaas_service.testing import an_order, eventually, state_of
from vmshepherd_kit.clock import SystemChance, SystemClock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import (
    NoCapacity,
    NotFound,
    OutcomeUnknown,
    Refused,
    ShepherdError,
    Unavailable,
)

SLEEPER = Flavor(command=["sleep", "600"])


def cloud_in(path: Path, *, suite_id: str = "contract", **options: Any) -> ProcessCloud:
    return ProcessCloud(
        ProcessOptions(**options),
        provider="process",
        suite=Suite(suite_id=suite_id, state_dir=path, base_dir=path, embedded=False),
        clock=SystemClock(),
        chance=SystemChance(),
    )


@asynccontextmanager
async def ephemeral(path: Path, **options: Any) -> AsyncIterator[ProcessCloud]:
    async with cloud_in(path, **options) as cloud:
        yield cloud
        for vm in (await cloud.list()).vms:
            await cloud.terminate(vm)


def sleepers(path: Path, **options: Any) -> Any:
    """A cloud whose VMs start at once and cost nothing."""
    return ephemeral(path, flavors={"small": SLEEPER}, **options)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ProcessCloud]:
    async with sleepers(tmp_path) as cloud:
        yield cloud


def pid_of(vm: Vm) -> int:
    return int(vm.cloud_state.removeprefix("pid "))


async def found(cloud: ProcessCloud, vm_id: VmId) -> Vm:
    [vm] = await cloud.get([vm_id])
    assert isinstance(vm, Vm), vm
    return vm


async def until(cloud: ProcessCloud, vm_id: VmId, state: VmState) -> Vm:
    async def is_so() -> bool:
        return await state_of(cloud, vm_id) is state

    await eventually(is_so)
    return await found(cloud, vm_id)


async def until_true(is_so: Callable[[], bool]) -> None:
    async def asked() -> bool:
        return is_so()

    await eventually(asked)


def has_told_its_name(path: Path) -> bool:
    return (path / "birth").exists() and (path / "birth").read_text() != ""


def pids_at_home_in(root: Path) -> set[int]:
    pids = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"\0HOME={root}/".encode() in b"\0" + (entry / "environ").read_bytes():
                pids.add(int(entry.name))
    return pids


def answer(vm: Vm, path: str = "/", method: str = "GET") -> tuple[int, bytes]:
    connection = HTTPConnection(vm.addresses[0].ip, 8080, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(vm: Vm) -> bool:
    try:
        return answer(vm)[0] == 200
    except OSError:
        return False


async def test_a_vm_told_nothing_answers_with_its_name(tmp_path: Path) -> None:
    async with ephemeral(tmp_path) as cloud:
        vm = await cloud.create(an_order())
        await until_true(partial(answers, vm))
        assert answer(vm) == (200, b"web-1\n")
        assert answer(vm, "/?x=1") == (200, b"web-1\n")
        assert answer(vm, "/secret") == (404, b"not found\n")
        assert answer(vm, method="HEAD") == (200, b"")


async def test_a_client_that_says_nothing_holds_up_nobody(tmp_path: Path) -> None:
    async with ephemeral(tmp_path) as cloud:
        vm = await cloud.create(an_order())
        await until_true(partial(answers, vm))
        _, silent = await asyncio.open_connection(vm.addresses[0].ip, 8080)
        assert answer(vm)[0] == 200
        silent.close()


async def test_vms_outlive_the_service_and_are_found_again(tmp_path: Path) -> None:
    order = an_order(token=3)
    async with cloud_in(tmp_path, flavors={"small": SLEEPER}) as former:
        vm = await former.create(order)
    async with sleepers(tmp_path) as cloud:
        again = await until(cloud, vm.vm_id, VmState.RUNNING)
        assert (await cloud.list()).vms == [again] == [vm]
        assert marker.read(again.metadata, "contract") == order.marker
        assert (await cloud.create(order)).vm_id == vm.vm_id
        assert len((await cloud.list()).vms) == 1


async def test_a_service_killed_at_any_moment_leaves_vms_that_are_found(tmp_path: Path) -> None:
    """A real service process, killed while it creates: each VM is there once, or not at all."""
    script = f"""
import asyncio
from pathlib import Path
from iaas_service.drivers.process import ProcessCloud, ProcessOptions
from iaas_service.testing import an_order
from vmshepherd_kit.clock import SystemChance, SystemClock
from vmshepherd_kit.config_file import Suite
path = Path({str(tmp_path)!r})
suite = Suite(suite_id="contract", state_dir=path, base_dir=path, embedded=False)
options = ProcessOptions.model_validate({{"flavors": {{"small": {{"command": ["sleep", "600"]}}}}}})
async def main():
    async with ProcessCloud(options, provider="p", suite=suite, clock=SystemClock(),
                            chance=SystemChance()) as cloud:
        print("begins", flush=True)
        await asyncio.gather(*(cloud.create(an_order()) for _ in range(200)))
        print("ends", flush=True)
asyncio.run(main())
"""
    service = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", script], stdout=subprocess.PIPE
    )
    assert service.stdout
    assert service.stdout.readline() == b"begins\n"
    root = tmp_path / "vms"
    await until_true(lambda: len(list(root.glob("*/birth"))) > 5)
    service.kill()
    assert service.stdout.read() == b"", "it was killed in the middle"
    service.wait()
    service.stdout.close()
    async with sleepers(tmp_path) as cloud:

        async def all_are_told() -> bool:
            states = {vm.state for vm in (await cloud.list()).vms}
            return VmState.PENDING not in states

        await eventually(all_are_told)
        vms = (await cloud.list()).vms
        alive = pids_at_home_in(root)
        assert {pid_of(vm) for vm in vms} == alive
        assert all(vm.state is VmState.RUNNING for vm in vms)


async def test_the_end_of_a_process_is_told_with_its_cause(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order())
    with cloud.watch() as changes:
        os.kill(pid_of(vm), signal.SIGKILL)
        async with asyncio.timeout(10):
            [change] = await changes.next()
    assert isinstance(change, Changed)
    assert change.vm.state is VmState.TERMINATED
    assert change.vm.fault == "killed by SIGKILL"


async def test_the_end_of_a_process_of_an_earlier_life_is_told_too(tmp_path: Path) -> None:
    async with cloud_in(tmp_path, flavors={"small": SLEEPER}) as former:
        vm = await former.create(an_order())
        path = former.root.folder(vm.vm_id).path
        await until_true(lambda: has_told_its_name(path))
    async with sleepers(tmp_path) as cloud:
        with cloud.watch() as changes:
            os.kill(pid_of(vm), signal.SIGKILL)
            async with asyncio.timeout(10):
                [change] = await changes.next()
        assert change.vm.state is VmState.TERMINATED


async def test_ended_vms_leave_no_zombies(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order())
    pid = pid_of(vm)
    os.kill(pid, signal.SIGKILL)
    await until_true(lambda: not Path(f"/proc/{pid}").exists())
    assert (await found(cloud, vm.vm_id)).state is VmState.TERMINATED


async def test_what_failed_to_start_says_why(tmp_path: Path) -> None:
    flavors = {"small": Flavor(command=["/no/such/program"])}
    async with ephemeral(tmp_path, flavors=flavors) as cloud:
        vm = await cloud.create(an_order())
        ended = await until(cloud, vm.vm_id, VmState.TERMINATED)
        await until_true((cloud.root.folder(vm.vm_id).path / "ended").exists)
        ended = await found(cloud, vm.vm_id)
        assert ended.fault.startswith("exited with status 127")
        assert "/no/such/program" in ended.fault


async def test_a_process_stopped_by_a_signal_goes_on_when_told(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order())
    os.kill(pid_of(vm), signal.SIGSTOP)
    await until(cloud, vm.vm_id, VmState.STOPPED)
    os.kill(pid_of(vm), signal.SIGCONT)
    await until(cloud, vm.vm_id, VmState.RUNNING)


async def test_fifty_vms_have_fifty_addresses_none_of_them_127_0(cloud: ProcessCloud) -> None:
    vms = await asyncio.gather(*(cloud.create(an_order()) for _ in range(50)))
    addresses = {vm.addresses[0].ip for vm in vms}
    assert len(addresses) == 50
    assert all(ip.startswith("127.") and not ip.startswith("127.0.") for ip in addresses)


async def test_an_address_where_somebody_listens_is_passed_over(tmp_path: Path) -> None:
    async with sleepers(tmp_path / "a") as first:
        vm = await first.create(an_order())
        wanted = vm.addresses[0].ip
    listener = await asyncio.start_server(lambda *_: None, wanted, 8080)
    async with listener, sleepers(tmp_path / "a") as second:
        vm = await second.create(an_order())
        assert vm.addresses[0].ip != wanted


async def test_a_vm_keeps_its_address_when_the_service_starts_anew(tmp_path: Path) -> None:
    async with cloud_in(tmp_path, flavors={"small": SLEEPER}) as former:
        old = await former.create(an_order())
    async with sleepers(tmp_path) as cloud:
        new = await cloud.create(an_order())
        assert new.addresses != old.addresses


async def test_a_folder_in_which_nothing_was_started_is_made_anew(tmp_path: Path) -> None:
    """The service died between the folder and the process: nobody was told of this VM."""
    order = an_order()
    async with sleepers(tmp_path) as former:
        vm = await former.create(order)
        facts = former.root.folder(vm.vm_id).facts()
        await former.terminate(vm)
        (former.root.path / ".terminated" / vm.vm_id).unlink()
        former.root.make(facts, "")
    async with sleepers(tmp_path) as cloud:
        assert (await cloud.list()).vms == []
        again = await cloud.create(order)
        assert again.vm_id == vm.vm_id
        assert (await until(cloud, vm.vm_id, VmState.RUNNING)).vm_id == vm.vm_id


async def test_a_process_that_has_not_told_its_name_is_neither_dead_nor_doubled(
    tmp_path: Path,
) -> None:
    """The service died between starting the process and its first word."""
    order = an_order()
    async with cloud_in(tmp_path, flavors={"small": SLEEPER}) as former:
        vm = await former.create(order)
        path = former.root.folder(vm.vm_id).path
        await until_true(lambda: has_told_its_name(path))
    (path / "birth").rename(path / "hidden")
    async with sleepers(tmp_path) as cloud:
        assert (await found(cloud, vm.vm_id)).state is VmState.PENDING
        assert (await cloud.create(order)).vm_id == vm.vm_id
        (path / "hidden").rename(path / "birth")
        assert pid_of(await until(cloud, vm.vm_id, VmState.RUNNING)) == pid_of(vm)
        with cloud.watch() as changes:
            await cloud.list()
            os.kill(pid_of(vm), signal.SIGKILL)
            async with asyncio.timeout(10):
                await changes.next()


async def test_a_pid_that_another_process_has_now_is_not_ours(
    tmp_path: Path, cloud: ProcessCloud
) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "600")
    vm = await cloud.create(an_order())
    path = cloud.root.folder(vm.vm_id).path
    await until_true(lambda: has_told_its_name(path))
    os.kill(pid_of(vm), signal.SIGKILL)
    await until(cloud, vm.vm_id, VmState.TERMINATED)
    theirs = proc.Process.of_pid(stranger.pid)
    assert theirs is not None
    # The pid went round: it is the stranger's now, who started later.
    cloud._machines[vm.vm_id].process = proc.Process(theirs.pid, theirs.start - 1)
    assert (await found(cloud, vm.vm_id)).state is VmState.TERMINATED
    await cloud.terminate(vm)
    assert stranger.returncode is None
    assert theirs.life() is proc.Life.RUNNING
    stranger.kill()
    await stranger.wait()


async def test_somebody_elses_child_is_never_reaped() -> None:
    child = subprocess.Popen(["true"])  # noqa: ASYNC220
    process = proc.Process.of_pid(child.pid)
    assert process is not None
    await until_true(lambda: process.life() is proc.Life.ENDED)
    assert proc.Process(process.pid, process.start - 1).reap() is None
    assert process.reap() == 0
    child.returncode = 0


@pytest.mark.parametrize("pid", [-1, 0, 1])
def test_a_pid_whose_group_is_everybody_is_never_believed(pid: int) -> None:
    stat = Path("/proc/self/stat").read_text().partition(" ")[2]
    with pytest.raises(ValueError, match="pid"):
        proc.parse_birth(f"{proc.boot()}\n{pid} {stat}")


async def test_after_a_reboot_of_the_machine_no_vm_runs(
    cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await cloud.create(an_order())
    path = cloud.root.folder(vm.vm_id).path
    await until_true(lambda: has_told_its_name(path))
    assert proc.parse_birth((path / "birth").read_text()) is not None
    with monkeypatch.context() as patched:
        patched.setattr(proc, "boot", lambda: "another boot")
        assert proc.parse_birth((path / "birth").read_text()) is None


async def test_a_vm_that_ignores_sigterm_is_killed_with_all_its_children(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; sleep 600 & setsid sleep 601 & echo ready; wait; sleep 602"
    flavors = {"small": Flavor(command=["sh", "-c", stubborn])}
    options = {"flavors": flavors, "patience": timedelta(milliseconds=50)}
    async with ephemeral(tmp_path, **options) as cloud:
        vm = await cloud.create(an_order())
        log = cloud.root.folder(vm.vm_id).path / "log"
        await until_true(lambda: log.exists() and "ready" in log.read_text())
        await until_true(lambda: len(list(proc.holders(f"VM_ID={vm.vm_id}"))) == 3)
        assert await cloud.terminate(vm) is True
        await until_true(lambda: not list(proc.holders(f"VM_ID={vm.vm_id}")))


async def test_a_stopped_vm_can_be_terminated(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order())
    os.kill(pid_of(vm), signal.SIGSTOP)
    await until(cloud, vm.vm_id, VmState.STOPPED)
    assert await cloud.terminate(vm) is True
    await until_true(lambda: not Path(f"/proc/{pid_of(vm)}").exists())


async def test_a_script_as_user_data_is_run_in_its_folder(tmp_path: Path) -> None:
    script = '#!/bin/sh\necho "$VM_NAME $VM_ADDRESS $VM_PORT $VM_PRESET" > seen\nexec sleep 600\n'
    async with ephemeral(tmp_path, port=7007) as cloud:
        vm = await cloud.create(an_order(spec=Spec(user_data=script)))
        seen = cloud.root.folder(vm.vm_id).path / "seen"
        await until_true(lambda: seen.exists() and seen.read_text() != "")
        assert seen.read_text() == f"web-1 {vm.addresses[0].ip} 7007 web\n"


async def test_a_vm_sees_nothing_of_the_services_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_PASSWORD", "hunter2")
    script = "#!/bin/sh\nenv > seen\nexec sleep 600\n"
    async with ephemeral(tmp_path) as cloud:
        vm = await cloud.create(an_order(spec=Spec(user_data=script)))
        seen = cloud.root.folder(vm.vm_id).path / "seen"
        await until_true(lambda: seen.exists() and "VM_ID" in seen.read_text())
        assert "hunter2" not in seen.read_text()


async def test_user_data_are_for_their_vm_alone(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order(spec=Spec(flavor="small", user_data="password: hunter2")))
    path = cloud.root.folder(vm.vm_id).path
    assert (path / "user-data").stat().st_mode & 0o777 == 0o600
    assert path.stat().st_mode & 0o777 == 0o700
    assert "hunter2" not in (path / "vm.json").read_text()


async def test_an_unknown_flavor_is_named_with_those_there_are(cloud: ProcessCloud) -> None:
    with pytest.raises(NotFound) as refusal:
        await cloud.create(an_order(spec=Spec(flavor="huge")))
    assert "small" in refusal.value.message
    assert [v.field for v in refusal.value.violations] == ["spec.flavor"]


async def test_metadata_can_be_edited_but_not_the_marker(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order(spec=Spec(flavor="small", metadata={"team": "search"})))
    path = cloud.root.folder(vm.vm_id).path / "metadata.json"
    assert json.loads(path.read_text()) == {"team": "search"}
    edited = {"team": "ops", marker.PROTECTED: True, marker.PRESET: "another"}
    path.write_text(json.dumps(edited))
    vm = await found(cloud, vm.vm_id)
    assert vm.metadata["team"] == "ops"
    assert marker.is_protected(vm)
    mark = marker.read(vm.metadata, "contract")
    assert mark is not None
    assert mark.preset == "web"


async def test_a_vm_whose_metadata_cannot_be_read_is_protected(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order())
    path = cloud.root.folder(vm.vm_id).path / "metadata.json"
    path.write_text('{"vmshepherd_protected": tr')
    vm = await found(cloud, vm.vm_id)
    assert vm.locked
    assert "metadata.json" in vm.fault
    path.write_text("{}")
    assert not (await found(cloud, vm.vm_id)).locked


async def test_a_folder_that_cannot_be_read_and_lives_makes_the_listing_incomplete(
    tmp_path: Path,
) -> None:
    async with cloud_in(tmp_path, flavors={"small": SLEEPER}) as former:
        vm = await former.create(an_order())
        path = former.root.folder(vm.vm_id).path / "vm.json"
    facts = path.read_text()
    path.write_text(facts[:20])
    async with sleepers(tmp_path) as cloud:
        listing = await cloud.list()
        assert not listing.complete
        assert vm.vm_id in listing.incomplete_reason
        [unread] = await cloud.get([vm.vm_id])
        assert isinstance(unread, Unavailable)
        path.write_text(facts)
        listing = await cloud.list()
        assert listing.complete
        assert [vm.vm_id for vm in listing.vms] == [vm.vm_id]


async def test_a_folder_removed_by_hand_is_gone_once_its_process_is(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order())
    path = cloud.root.folder(vm.vm_id).path
    path.rename(path.with_name(".hidden"))
    assert [left.vm_id for left in (await cloud.list()).vms] == [vm.vm_id]
    os.kill(pid_of(vm), signal.SIGKILL)
    await until_true(lambda: not Path(f"/proc/{pid_of(vm)}").exists())
    await cloud.list()
    assert (await cloud.list()).vms == []


async def test_a_root_has_one_service_at_a_time(tmp_path: Path) -> None:
    async with sleepers(tmp_path):
        with pytest.raises(Refused) as refusal:
            async with cloud_in(tmp_path):
                pass
        assert refusal.value.reason == "ROOT_IN_USE"
        assert str(tmp_path / "vms") in refusal.value.message
    async with sleepers(tmp_path):
        pass


async def test_a_root_that_a_killed_service_holds_for_a_moment_is_waited_for(
    tmp_path: Path,
) -> None:
    """A child that was about to be started has a copy of every descriptor, until it is."""
    async with sleepers(tmp_path) as former:
        root = former.root
    with root.held():
        opened = asyncio.create_task(cloud_in(tmp_path).__aenter__())
        await asyncio.sleep(0.05)
        assert not opened.done()
    await (await opened).__aexit__()


async def test_two_suites_in_one_root_see_only_their_own_vms(tmp_path: Path) -> None:
    async with cloud_in(tmp_path, suite_id="another", flavors={"small": SLEEPER}) as former:
        foreign = await former.create(an_order(suite_id="another"))
    async with sleepers(tmp_path) as cloud:
        assert (await cloud.list()).vms == []
        await cloud.terminate(foreign)


@pytest.mark.parametrize("step", ["folder", "process"])
async def test_a_full_disk_is_no_capacity_and_leaves_nothing(
    cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    order = an_order()
    with monkeypatch.context() as patched:
        if step == "folder":
            patched.setattr(folder, "_write", full)
        else:
            patched.setattr(subprocess.Popen, "__init__", full)
        with pytest.raises(NoCapacity) as refusal:
            await cloud.create(order)
    assert "No space left" in refusal.value.message
    assert cloud.root.names() == set()
    assert list(cloud.root.path.glob(".new-*")) == []
    assert (await cloud.create(order)).state is VmState.RUNNING


async def test_a_caller_that_goes_away_leaves_no_half_made_vm(cloud: ProcessCloud) -> None:
    order = an_order()
    asked = asyncio.create_task(cloud.create(order))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    vm = await cloud.create(order)
    assert vm.state is VmState.RUNNING
    assert cloud.root.names() == {vm.vm_id}


async def test_a_crash_in_the_middle_of_a_removal_is_finished_by_the_next_life(
    tmp_path: Path,
) -> None:
    async with sleepers(tmp_path) as former:
        half = former.root.path / ".gone-x"
        half.mkdir()
        (half / "vm.json").write_text("{}")
    async with sleepers(tmp_path) as cloud:
        assert not half.exists()
        assert (await cloud.list()).vms == []


async def test_a_listing_starts_no_process_and_reads_no_facts_again(
    cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms = await asyncio.gather(*(cloud.create(an_order()) for _ in range(20)))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a listing starts no process")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(folder.Folder, "facts", refuse)
    listing = await cloud.list()
    assert {vm.vm_id for vm in listing.vms} == {vm.vm_id for vm in vms}


async def test_an_error_of_the_root_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "vms").write_text("a file, no folder")
    with pytest.raises(ShepherdError) as refusal:
        async with cloud_in(tmp_path):
            pass
    assert str(tmp_path / "vms") in refusal.value.message


@pytest.mark.parametrize(
    "damage",
    [
        {"create_time": "yesterday"},
        {"create_time": "2026-01-01T00:00:00"},
        {"metadata": None},
        {"metadata": {}},
        {"address": 7},
        {"argv": "rm"},
        {"vm_id": "another"},
        {"vm_id": "../../elsewhere"},
    ],
)
async def test_a_vm_whose_facts_make_no_sense_is_unreadable_and_the_others_are_listed(
    tmp_path: Path, damage: dict[str, Any]
) -> None:
    async with cloud_in(tmp_path, flavors={"small": SLEEPER}) as former:
        broken, sound = await former.create(an_order()), await former.create(an_order())
    path = tmp_path / "vms" / broken.vm_id / "vm.json"
    facts = json.loads(path.read_bytes())
    path.write_text(json.dumps(facts | damage))
    async with sleepers(tmp_path) as cloud:
        listing = await cloud.list()
        assert [vm.vm_id for vm in listing.vms] == [sound.vm_id]
        assert not listing.complete
        assert str(path.parent) in listing.incomplete_reason
        path.write_text(json.dumps(facts))
        assert (await cloud.list()).complete


async def test_a_vm_whose_folder_is_gone_is_missed_by_no_listing_while_it_runs(
    tmp_path: Path,
) -> None:
    async with cloud_in(tmp_path, flavors={"small": SLEEPER}) as former:
        vm = await former.create(an_order())
        pid = pid_of(vm)
        await until_true(partial(has_told_its_name, tmp_path / "vms" / vm.vm_id))
    (tmp_path / "vms").rename(tmp_path / "away")
    async with sleepers(tmp_path) as cloud:
        listing = await cloud.list()
        assert not listing.complete
        assert f"pid {pid}" in listing.incomplete_reason
        assert isinstance((await cloud.get([vm.vm_id]))[0], Unavailable)
        (tmp_path / "away" / vm.vm_id).rename(tmp_path / "vms" / vm.vm_id)
        listing = await cloud.list()
        assert listing.complete
        assert [each.vm_id for each in listing.vms] == [vm.vm_id]


async def test_a_vm_whose_folder_is_gone_is_no_matter_once_it_has_ended(tmp_path: Path) -> None:
    async with cloud_in(tmp_path, flavors={"small": SLEEPER}) as former:
        vm = await former.create(an_order())
        pid = pid_of(vm)
        await until_true(partial(has_told_its_name, tmp_path / "vms" / vm.vm_id))
    shutil.rmtree(tmp_path / "vms")
    async with sleepers(tmp_path) as cloud:
        assert not (await cloud.list()).complete
        os.kill(pid, signal.SIGKILL)

        async def is_whole() -> bool:
            listing = await cloud.list()
            return bool(listing.complete)

        await eventually(is_whole)
        assert isinstance((await cloud.get([vm.vm_id]))[0], NotFound)


async def test_of_many_vms_that_cannot_be_shown_a_few_are_named(tmp_path: Path) -> None:
    async with cloud_in(tmp_path, flavors={"small": SLEEPER}) as former:
        vms = await asyncio.gather(*(former.create(an_order()) for _ in range(5)))
    paths = [tmp_path / "vms" / vm.vm_id / "vm.json" for vm in vms]
    facts = [path.read_text() for path in paths]
    for path in paths:
        path.write_text("{")
    async with sleepers(tmp_path) as cloud:
        reason = (await cloud.list()).incomplete_reason
        assert sum(vm.vm_id in reason for vm in vms) == 3
        assert reason.endswith("and 2 more VMs")
        for path, text in zip(paths, facts, strict=True):
            path.write_text(text)
        assert (await cloud.list()).complete


# Rebuilds.

WRITER = "#!/bin/sh\necho {word} > word; mkdir -p a/b; echo {word} says; exec sleep 600\n"


def writing(word: str) -> Spec:
    return Spec(flavor="small", image=f"image-{word}", user_data=WRITER.format(word=word))


async def until_written(folder: Path, word: str) -> None:
    path = folder / "word"
    await until_true(lambda: path.exists() and path.read_text() == f"{word}\n")


async def test_a_rebuilt_vm_runs_the_new_user_data_in_an_empty_folder(tmp_path: Path) -> None:
    async with ephemeral(tmp_path) as cloud:
        vm = await cloud.create(an_order(spec=writing("old")))
        folder = cloud.root.path / vm.vm_id
        await until_written(folder, "old")
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "precious").touch()
        (folder / "link").symlink_to(outside)
        (folder / "mine").touch()
        rebuilt = await cloud.rebuild(vm, writing("new"), spec_hash="77aa")
        await until_written(folder, "new")
        assert not (folder / "mine").exists()
        assert not (folder / "link").is_symlink()
        assert (outside / "precious").exists(), "what is elsewhere is not its disk"
        assert pid_of(rebuilt) != pid_of(vm)
        assert (rebuilt.vm_id, rebuilt.create_time) == (vm.vm_id, vm.create_time)
        assert not list(folder.glob("*.new"))


async def test_a_vm_is_started_anew_only_when_all_that_it_left_behind_is_dead(
    tmp_path: Path,
) -> None:
    deaf = "trap '' TERM; while :; do mkdir -p d; date > d/now; done"
    crowd = f'#!/bin/sh\nfor n in 1 2 3 4 5 6; do setsid sh -c "{deaf}" & done; echo up > word\n'
    crowd += "exec sleep 600\n"
    async with ephemeral(tmp_path) as cloud:
        vm = await cloud.create(an_order(spec=Spec(flavor="small", user_data=crowd)))
        folder = cloud.root.path / vm.vm_id
        await until_written(folder, "up")
        await until_true((folder / "d").exists)
        await cloud.reboot(vm)
        await until_true((folder / "d").exists)
        await cloud.rebuild(vm, writing("new"), spec_hash="77aa")
        await until_written(folder, "new")
        assert not (folder / "d").exists()


async def test_a_rebuilt_vm_without_user_data_has_none_left(tmp_path: Path) -> None:
    async with ephemeral(tmp_path) as cloud:
        vm = await cloud.create(an_order(spec=writing("old")))
        await cloud.rebuild(vm, Spec(image="debian"), spec_hash="")
        assert not (cloud.root.path / vm.vm_id / "user-data").exists()
        await until_true(partial(answers, vm))


async def test_a_rebuilt_vm_is_known_as_rebuilt_by_the_next_service(tmp_path: Path) -> None:
    order = an_order(spec=writing("old"))
    async with cloud_in(tmp_path) as former:
        vm = await former.create(order)
        rebuilt = await former.rebuild(vm, writing("new"), spec_hash="77aa")
    async with ephemeral(tmp_path) as cloud:
        again = await until(cloud, vm.vm_id, VmState.RUNNING)
        assert again == rebuilt
        assert again.metadata[marker.SPEC] == "77aa"
        assert (await cloud.create(order)).vm_id == vm.vm_id, "its request is still its own"
        rebooted = await cloud.reboot(again)
        assert rebooted.metadata[marker.SPEC] == "77aa"
        await until_written(cloud.root.path / vm.vm_id, "new")


async def test_a_rebuild_keeps_what_people_wrote_of_the_vm(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order())
    path = cloud.root.path / vm.vm_id / "metadata.json"
    path.write_text(json.dumps({marker.PROTECTED: "true"}))
    rebuilt = await cloud.rebuild(vm, Spec(image="debian"), spec_hash="77aa")
    assert marker.is_protected(rebuilt)


async def test_a_rebuild_without_room_leaves_the_vm_running(
    cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await cloud.create(an_order())

    def full(path: Path, text: str, **_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_write", full)
        with pytest.raises(NoCapacity):
            await cloud.rebuild(vm, Spec(image="alpine"), spec_hash="77aa")
    assert await found(cloud, vm.vm_id) == vm


async def test_a_rebuild_that_ended_the_vm_and_no_more_is_of_unknown_outcome(
    cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await cloud.create(an_order())
    path = cloud.root.path / vm.vm_id / "data"
    path.touch()

    def stuck(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_remove", stuck)
        with pytest.raises(OutcomeUnknown, match="data"):
            await cloud.rebuild(vm, Spec(image="alpine"), spec_hash="77aa")
    half = await until(cloud, vm.vm_id, VmState.TERMINATED)
    assert (half.image, half.metadata[marker.SPEC]) == (vm.image, "9f2c"), "it is the new one"
    rebuilt = await cloud.rebuild(vm, Spec(image="alpine"), spec_hash="77aa")
    assert (rebuilt.image, rebuilt.metadata[marker.SPEC]) == ("alpine", "77aa")
    assert not path.exists()


async def test_a_reboot_that_cannot_start_the_vm_again_is_of_unknown_outcome(
    cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await cloud.create(an_order())

    def failing(*_: Any) -> None:
        raise NoCapacity("this machine has no room for the VM")

    monkeypatch.setattr(launch, "start", failing)
    with pytest.raises(OutcomeUnknown, match="no room"):
        await cloud.reboot(vm)
    assert await state_of(cloud, vm.vm_id) is VmState.TERMINATED


async def test_a_vm_keeps_its_flavor_and_a_flavor_that_is_gone_rebuilds_nothing(
    tmp_path: Path,
) -> None:
    async with cloud_in(tmp_path, flavors={"small": SLEEPER, "large": SLEEPER}) as former:
        vm = await former.create(an_order())
        rebuilt = await former.rebuild(vm, Spec(flavor="large"), spec_hash="")
        assert rebuilt.flavor == "small"
    async with ephemeral(tmp_path, flavors={"large": SLEEPER}) as cloud:
        with pytest.raises(NotFound) as refusal:
            await cloud.rebuild(rebuilt, Spec(flavor="large"), spec_hash="")
        assert refusal.value.reason == "FLAVOR_NOT_FOUND"
        await until(cloud, vm.vm_id, VmState.RUNNING)


# Consoles.


async def test_the_console_of_a_vm_is_the_end_of_its_log_and_bounded(cloud: ProcessCloud) -> None:
    vm = await cloud.create(an_order())
    log = cloud.root.path / vm.vm_id / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert await cloud.console(vm, 2) == "line 99998\nline 99999"
    log.write_text("x" * 1_000_000)
    assert len(await cloud.console(vm, 200)) == 64 * 1024


async def test_a_console_goes_on_where_it_was_after_a_rebuild(tmp_path: Path) -> None:
    async with ephemeral(tmp_path) as cloud:
        vm = await cloud.create(an_order(spec=writing("old")))

        async def says(word: str) -> bool:
            return f"{word} says" in await cloud.console(vm, 5)

        await eventually(lambda: says("old"))
        await cloud.rebuild(vm, writing("new"), spec_hash="")
        await eventually(lambda: says("new"))
        assert await says("old"), "it is the evidence of what failed"


@pytest.mark.parametrize("trick", ["pipe", "link", "gone"])
async def test_a_vm_that_puts_something_in_the_place_of_its_log_shows_nothing(
    cloud: ProcessCloud, tmp_path: Path, trick: str
) -> None:
    vm = await cloud.create(an_order())
    log, secret = cloud.root.path / vm.vm_id / "log", tmp_path / "secret"
    secret.write_text("hunter2")
    log.unlink()
    if trick == "pipe":
        os.mkfifo(log)
    elif trick == "link":
        log.symlink_to(secret)
    shown = ""
    async with asyncio.timeout(5):
        with suppress(Unavailable):
            shown = await cloud.console(vm, 5)
        os.kill(pid_of(vm), signal.SIGKILL)
        ended = await until(cloud, vm.vm_id, VmState.TERMINATED)
    assert shown == ""
    assert "hunter2" not in ended.fault
