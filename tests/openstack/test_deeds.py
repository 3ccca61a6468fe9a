"""What is done to a server is done once, in the way that was asked for, or surely not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from iaas_service.domain import Gone, Vm
from iaas_service.drivers.openstack import inventory as inventory_module
from iaas_service.testing import THE_LEAST, a_running_vm, an_order, eventually
from tests.openstack.driver import driver
from tests.openstack.faults import Empty, Older, Refusal
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import NotFound, OutcomeUnknown, Unavailable, Unsupported

DELETE = "compute DELETE /servers/{id}"
ACTION = "compute POST /servers/{id}/action"


async def test_a_delete_that_is_not_answered_well_has_an_unknown_outcome(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await a_running_vm(cloud)
        rule = proxy.on("compute", "DELETE", "/servers/.*", Refusal(status=503))
        with pytest.raises(OutcomeUnknown):
            await cloud.terminate(vm)
        assert len(rule.met) == 1
        proxy.calm()

        async def is_gone() -> bool:
            return await asyncio.to_thread(openstack.servers, project) == {}

        await eventually(is_gone)
        assert not await cloud.terminate(vm)


@pytest.mark.parametrize(("may_force", "has_failed"), [(False, True), (True, False)])
async def test_what_runs_and_what_may_not_be_forced_is_deleted_as_by_a_person(
    openstack: OpenStack, project: Project, proxy: Proxy, *, may_force: bool, has_failed: bool
) -> None:
    async with driver(project, auth_url=proxy.auth_url, force_delete=may_force) as cloud:
        vm = await a_running_vm(cloud)
        if has_failed:
            await asyncio.to_thread(openstack.set_state, vm.vm_id, "error")
            [vm] = (await cloud.list()).vms
        with proxy.counting() as calls:
            assert await cloud.terminate(vm)
        assert (calls[DELETE], calls[ACTION]) == (1, 0)


async def test_a_console_that_is_not_told_is_no_unknown_outcome(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await cloud.create(an_order())
        proxy.on("compute", "POST", "/servers/.*/action", Refusal(status=500, forwarded=False))
        with pytest.raises(Unavailable):
            await cloud.console(vm, 3)


async def test_a_nova_that_cannot_set_user_data_rebuilds_nothing(
    project: Project, proxy: Proxy
) -> None:
    proxy.on("compute", "GET", "/", Older(microversion="2.56"))
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await a_running_vm(cloud)
        with (
            proxy.counting() as calls,
            pytest.raises(Unsupported, match=r"new user data need 2\.57"),
        ):
            await cloud.rebuild(vm, THE_LEAST, spec_hash="77aa")
        assert calls[ACTION] == 0


async def test_an_old_nova_serves_and_what_it_lacks_is_refused_by_name(
    openstack: OpenStack, project: Project, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.on("compute", "GET", "/", Older(microversion="2.36"))
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        for _ in range(2):
            assert (await cloud.list()).complete
        for option in ({"tags": ["blue"]}, {"networks": "none"}):
            with pytest.raises(Unsupported, match=f"{next(iter(option))}.*microversion"):
                await cloud.create(an_order(spec=replace(THE_LEAST, options=option)))
        assert await asyncio.to_thread(openstack.servers, project) == {}
        wish = {"server_group": "anti-affinity"}
        vm = await cloud.create(an_order(spec=replace(THE_LEAST, options=wish)))
        [group] = project.api.get("compute", "/os-server-groups")["server_groups"]
        assert group["members"] == [vm.vm_id]
    assert capsys.readouterr().out.count("does not tell of cells that are down") == 1


async def test_two_processes_find_each_others_server_group(project: Project, proxy: Proxy) -> None:
    order = an_order(spec=replace(THE_LEAST, options={"server_group": "soft-anti-affinity"}))
    async with driver(project) as one, driver(project) as two:
        # Both know that there is none.
        groups = two.sites[0].inventory
        assert await groups.server_groups("any") == []
        for cloud in (one, two):
            another = an_order(spec=order.spec)
            assert isinstance(await cloud.create(another), Vm)
        [group] = project.api.get("compute", "/os-server-groups")["server_groups"]
        assert len(group["members"]) == 2


async def test_of_several_groups_of_one_name_all_use_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each stands on a page of its own.
    monkeypatch.setattr(inventory_module, "_PAGES", {"limit": 1})
    async with driver(project) as cloud:
        name = "vmshepherd contract web soft-affinity"
        wanted = {"server_group": {"name": name, "policy": "soft-affinity"}}
        ids = [
            project.api.post("compute", "/os-server-groups", wanted)["server_group"]["id"]
            for _ in range(3)
        ]
        spec = replace(THE_LEAST, options={"server_group": "soft-affinity"})
        vm = await cloud.create(an_order(spec=spec))
        groups = project.api.get("compute", "/os-server-groups")["server_groups"]
    assert {each["id"]: each["members"] for each in groups} == {
        each: [vm.vm_id] if each == min(ids) else [] for each in ids
    }


async def test_a_group_that_is_made_and_not_listed_makes_no_vm(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        proxy.on("compute", "GET", "/os-server-groups", Empty(key="server_groups"))
        spec = replace(THE_LEAST, options={"server_group": "affinity"})
        with pytest.raises(Unavailable, match="is not listed yet"):
            await cloud.create(an_order(spec=spec))
        assert await asyncio.to_thread(openstack.servers, project) == {}


async def test_what_nova_calls_gone_was_gone(project: Project, proxy: Proxy) -> None:
    async with driver(project, auth_url=proxy.auth_url, watch_interval="1h") as cloud:
        vm = await cloud.create(an_order())
        said = f"Instance {vm.vm_id} could not be found."
        gone = Refusal(status=404, message=said, forwarded=False)
        proxy.on("compute", "DELETE", "/servers/.*", gone)
        with cloud.watch() as changes:
            assert not await cloud.terminate(vm)
            [change] = await asyncio.wait_for(changes.next(), 60)
            assert isinstance(change, Gone)
        proxy.on("compute", "GET", "/servers/.*", gone)
        with pytest.raises(NotFound):
            await cloud.reboot(vm)
