"""What people do to servers, as the driver reports it, at a real Nova."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from iaas_service import convert
from iaas_service.domain import Spec, Vm, VmState
from iaas_service.drivers.openstack import OpenstackCloud
from iaas_service.marker import TIMED_SHUTDOWN
from iaas_service.testing import (
    THE_LEAST,
    a_running_vm,
    an_order,
    eventually,
    eventually_runs,
)
from tests.openstack.driver import driver
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import ShepherdError

# What is done to it, what it is then, and how it is undone.
PARKED = (
    ("pause", "PAUSED", "unpause"),
    ("suspend", "SUSPENDED", "resume"),
    ("os-stop", "SHUTOFF", "os-start"),
    ("rescue", "RESCUE", "unrescue"),
    ("shelve", "SHELVED_OFFLOADED", "unshelve"),
)


async def becomes(cloud: OpenstackCloud, vm: Vm, cloud_state: str) -> Vm:
    """The VM once the cloud says that of it."""
    seen: list[Vm] = []

    async def is_so() -> bool:
        [found] = await cloud.get([vm.vm_id])
        assert isinstance(found, Vm), found
        seen.append(found)
        return found.cloud_state == cloud_state

    await eventually(is_so)
    return seen[-1]


async def test_whatever_somebody_parks_is_stopped_and_runs_again_when_they_say_so(
    project: Project,
) -> None:
    async with driver(project) as cloud:
        vm = await a_running_vm(cloud)
        for park, status, undo in PARKED:
            await asyncio.to_thread(project.act, vm.vm_id, park)
            assert (await becomes(cloud, vm, status)).state is VmState.STOPPED, status
            await asyncio.to_thread(project.act, vm.vm_id, undo)
            await eventually_runs(cloud, vm.vm_id)


async def test_a_vm_that_fits_nowhere_is_given_up_in_the_clouds_own_words(
    project: Project,
) -> None:
    async with driver(project) as cloud:
        vm = await cloud.create(an_order(spec=replace(THE_LEAST, flavor="huge")))

        async def has_words() -> bool:
            [listed] = (await cloud.list()).vms
            return listed.state is VmState.ERROR and bool(listed.fault)

        await eventually(has_words)
        [listed] = (await cloud.list()).vms
        assert "No valid host was found" in listed.fault
        assert listed.create_time == vm.create_time
        assert await cloud.terminate(listed)


async def test_a_vm_is_the_same_from_its_order_to_its_end(
    openstack: OpenStack, project: Project
) -> None:
    async with driver(project) as cloud:
        made = await cloud.create(an_order(spec=Spec(flavor="small", image="debian")))
        await eventually_runs(cloud, made.vm_id)
        [running] = (await cloud.list()).vms
        await asyncio.to_thread(openstack.set_state, made.vm_id, "error")
        [failed] = (await cloud.list()).vms
    assert made.create_time == running.create_time == failed.create_time
    assert made.image == running.image == failed.image == "debian"
    assert running.flavor == "small"


async def test_a_shutdown_time_that_is_none_concerns_its_vm_alone(project: Project) -> None:
    async with driver(project) as cloud:
        odd = replace(THE_LEAST, metadata={TIMED_SHUTDOWN: "tomorrow"})
        await cloud.create(an_order(spec=odd))
        await cloud.create(an_order())
        listing = await cloud.list()
    assert listing.complete
    faults = sorted(convert.vm_message("osk", vm, None).fault for vm in listing.vms)
    assert faults[0] == ""
    assert "is no time and is ignored" in faults[1]


async def test_a_vm_whose_guest_runs_is_asked_to_reboot_and_one_that_failed_is_made_to(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await a_running_vm(cloud)
        assert (await cloud.reboot(vm)).cloud_state == "REBOOT"
        await eventually_runs(cloud, vm.vm_id)
        await asyncio.to_thread(openstack.set_state, vm.vm_id, "error")
        assert (await cloud.reboot(vm)).cloud_state == "HARD_REBOOT"
        await eventually_runs(cloud, vm.vm_id)


async def test_a_vm_that_is_rebuilt_keeps_what_the_cloud_wrote_upon_it(
    openstack: OpenStack, project: Project
) -> None:
    async with driver(project) as cloud:
        vm = await cloud.create(an_order(spec=replace(THE_LEAST, metadata={"team": "search"})))
        await eventually_runs(cloud, vm.vm_id)
        spec = Spec(image="debian-13", user_data="#!/bin/sh\necho two\n")
        await cloud.rebuild(vm, spec, spec_hash="77aa")
        await eventually_runs(cloud, vm.vm_id)
        [rebuilt] = (await cloud.list()).vms
        written = await asyncio.to_thread(openstack.metadata, vm.vm_id)
    assert (rebuilt.create_time, rebuilt.image) == (vm.create_time, "debian-13")
    assert written["team"] == "search"
    assert written["vmshepherd_spec"] == "77aa"


async def test_what_cannot_be_read_raises_no_bug(project: Project) -> None:
    async with driver(project) as cloud:
        for strange in ("", "../servers", "a b", "x" * 300):
            [found] = await cloud.get([strange])  # type: ignore[list-item]
            assert isinstance(found, ShepherdError)
