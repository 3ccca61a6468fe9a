"""Only Nova's own word proves that a server is gone: a 404 may be anybody's."""

from __future__ import annotations

import asyncio

import pytest

from iaas_service.testing import an_order
from tests.openstack.driver import driver
from tests.openstack.faults import Fault, Page, Refusal
from tests.openstack.ground import OpenStack, Project, until
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import NotFound, Unavailable

SOMEBODYS = [Page(status=404, forwarded=False), Refusal(status=404, forwarded=False)]


@pytest.mark.parametrize("fault", SOMEBODYS, ids=["a page", "a message"])
async def test_a_server_is_not_gone_because_somebody_answers_404(
    openstack: OpenStack, project: Project, proxy: Proxy, fault: Fault
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await cloud.create(an_order())
        with proxy.while_("compute", "*", "/servers/.*", fault):
            [found] = await cloud.get([vm.vm_id])
            assert isinstance(found, Unavailable)
            assert found.reason == "CLOUD_FAILING"
            with pytest.raises(Unavailable, match="nothing was done"):
                await cloud.terminate(vm)
        assert list(openstack.servers(project)) == [vm.vm_id]
        assert vm.vm_id in {each.vm_id for each in (await cloud.list()).vms}


async def test_a_server_is_gone_when_nova_says_so_to_each_question(
    openstack: OpenStack, project: Project
) -> None:
    async with driver(project) as cloud:
        vm = await cloud.create(an_order())
        await asyncio.to_thread(project.delete, vm.vm_id)
        await asyncio.to_thread(until, lambda: not openstack.servers(project), "it is gone")
        [found] = await cloud.get([vm.vm_id])
        assert isinstance(found, NotFound)
        assert await cloud.terminate(vm) is False
