"""A port is called left over only when both Nova and Neutron say so at the same time."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from iaas_service.drivers.openstack import OpenstackCloud, leaks
from iaas_service.testing import SUITE_ID, a_running_vm
from tests.openstack.driver import driver
from tests.openstack.faults import Changed, Refusal
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from tests.openstack.test_leaks import port_of

NOBODY = str(uuid.uuid4())
PORT = "/ports/[0-9a-f-]{36}"


@pytest.fixture
async def cloud(openstack: OpenStack, home: Project, proxy: Proxy) -> AsyncIterator[OpenstackCloud]:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        yield cloud


@pytest.fixture
def port(home: Project) -> Iterator[str]:
    """Of a server that there is none of any more."""
    made = port_of(home, NOBODY)
    yield made
    home.api.delete("network", f"/v2.0/ports/{made}")


async def found(cloud: OpenstackCloud, *, made: Sequence[str] = ()) -> dict[str, bool]:
    """The things that are left over, and whether they are known to be ours."""
    told = await leaks.find(cloud.sites[0].api, suite_id=SUITE_ID, made=made)
    return {leak.id: leak.is_ours for leak in told}


async def test_a_port_is_ours_if_this_process_made_its_vm(cloud: OpenstackCloud, port: str) -> None:
    assert await found(cloud) == {port: False}
    assert await found(cloud, made=[NOBODY]) == {port: True}


async def test_a_vm_that_is_listed_is_not_asked_for_because_of_its_port(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await a_running_vm(cloud)
        with proxy.counting() as calls:
            assert await found(cloud) == {}
    assert calls["compute GET /servers/{id}"] == 0
    assert calls["network GET /ports"] == 1


async def test_a_port_that_goes_meanwhile_is_not_left_over(
    cloud: OpenstackCloud, port: str, proxy: Proxy
) -> None:
    in_neutrons_words = f"Port {port} could not be found."
    refusal = Refusal(status=404, message=in_neutrons_words, forwarded=False)
    gone = proxy.on("network", "GET", PORT, refusal)
    assert await found(cloud) == {}
    assert len(gone.met) == 1


async def test_a_port_that_serves_another_vm_by_now_is_not_left_over(
    cloud: OpenstackCloud, port: str, proxy: Proxy
) -> None:
    def attach(said: Any) -> None:
        said["port"]["device_id"] = str(uuid.uuid4())

    proxy.on("network", "GET", PORT, Changed(change=attach))
    assert await found(cloud) == {}


@pytest.mark.parametrize(
    "said",
    [{"device_id": NOBODY}, {"device_owner": "compute:north"}],
    ids=["of no kind", "of no vm"],
)
async def test_a_port_that_nova_attached_to_no_vm_is_not_left_over(
    cloud: OpenstackCloud, home: Project, said: dict[str, str]
) -> None:
    networks = home.api.get("network", "/v2.0/networks")["networks"]
    [network_id] = [each["id"] for each in networks if each["name"] == "private"]
    wanted = {"network_id": network_id, **said}
    other = home.api.post("network", "/v2.0/ports", {"port": wanted})["port"]["id"]
    assert await found(cloud) == {}
    home.api.delete("network", f"/v2.0/ports/{other}")
