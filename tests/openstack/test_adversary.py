"""What an operator gets wrong, and what a cloud takes although it can do nothing with it: told
before anything is made, and never in another project or region than the one that is meant.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from iaas_service.domain import Attachment, Order, Spec
from iaas_service.drivers.openstack import OpenstackCloud
from iaas_service.testing import an_order
from tests.openstack.cloud import seed
from tests.openstack.driver import driver, driver_of
from tests.openstack.faults import Answer, Fault
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import BadRequest, Refused, ShepherdError

_ENVIRONMENT = {
    "OS_AUTH_URL": "auth_url",
    "OS_USERNAME": "username",
    "OS_PASSWORD": "password",
    "OS_PROJECT_NAME": "project_name",
    "OS_USER_DOMAIN_NAME": "user_domain_name",
    "OS_PROJECT_DOMAIN_NAME": "project_domain_name",
}


@dataclass(frozen=True, kw_only=True)
class OneGroup(Fault):
    """The same server group on each page, whichever page is asked for."""

    group_id: str
    name: str

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        group = {"id": self.group_id, "name": self.name, "policy": "affinity", "members": []}
        body = json.dumps({"server_groups": [group]}).encode()
        return Answer(status=answer.status, headers=answer.headers, body=body)


@pytest.fixture
async def cloud(project: Project, proxy: Proxy) -> AsyncIterator[OpenstackCloud]:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        yield cloud


def order(**fields: Any) -> Order:
    named = (Attachment(network="private"),)
    return an_order(
        spec=Spec(**{"flavor": "m1.tiny", "image": "debian", "networks": named, **fields})
    )


async def refused_unsent(cloud: OpenstackCloud, proxy: Proxy, **fields: Any) -> ShepherdError:
    with proxy.counting() as calls, pytest.raises(BadRequest) as refusal:
        await cloud.create(order(**fields))
    assert "compute POST /servers" not in calls
    return refusal.value


async def places(cloud: OpenstackCloud) -> list[tuple[str, str]]:
    """Project and region of each place, as Keystone let the driver in."""
    logins = [await site.api.access() for site in cloud.sites]
    return [(login.project_id, login.region) for login in logins]


async def test_a_network_without_a_subnet_is_refused_before_anything_is_made(
    cloud: OpenstackCloud, proxy: Proxy, project: Project
) -> None:
    project.api.post("network", "/v2.0/networks", {"network": {"name": "bare"}})
    error = await refused_unsent(cloud, proxy, networks=(Attachment(network="bare"),))
    assert "network 'bare' has no subnet" in error.message


async def test_metadata_beyond_novas_limit_are_refused_before_anything_is_made(
    cloud: OpenstackCloud, proxy: Proxy
) -> None:
    error = await refused_unsent(cloud, proxy, metadata={f"k{n}": "v" for n in range(122)})
    assert "has 122 items, and Nova takes 128 of a VM, 7 of which" in error.message


async def test_letters_that_nova_takes_and_never_makes_are_refused_before_anything_is_made(
    cloud: OpenstackCloud, proxy: Proxy
) -> None:
    await cloud.list()
    error = await refused_unsent(cloud, proxy, metadata={"mood": "🚀"})
    assert "spec.metadata" in error.message


async def test_a_vm_whose_order_is_larger_than_nova_reads_is_a_fault_of_its_preset(
    cloud: OpenstackCloud, project: Project
) -> None:
    long = {f"k{n}": "東" * 255 for n in range(121)}
    with pytest.raises(BadRequest, match="Request is too large"):
        await cloud.create(order(metadata=long, user_data="#" * 40_000))


async def test_as_many_and_as_long_metadata_as_nova_takes_are_written_upon_a_vm(
    cloud: OpenstackCloud, project: Project
) -> None:
    wanted = {f"k{n}": "ä" * (255 if n < 20 else 1) for n in range(121)}
    vm = await cloud.create(order(metadata=wanted))
    shown = project.server(vm.vm_id)["metadata"]
    assert {key: shown[key] for key in wanted} == wanted


def of_environment(
    project: Project, monkeypatch: pytest.MonkeyPatch, folder: Path, **options: Any
) -> OpenstackCloud:
    given = project.credentials()
    for name, key in _ENVIRONMENT.items():
        monkeypatch.setenv(name, given[key])
    monkeypatch.setenv("OS_REGION_NAME", "RegionOne")
    monkeypatch.chdir(folder)
    return driver_of({"http_timeout": "100s", **options})


async def test_projects_and_regions_are_those_of_the_options_whatever_the_environment_says(
    openstack: OpenStack, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    another = openstack.project()
    seed.add_member(openstack.admin, project.name, another.name)
    both = {"projects": [project.name, another.name], "regions": ["RegionOne", "RegionTwo"]}
    async with of_environment(project, monkeypatch, tmp_path, **both) as cloud:
        assert await places(cloud) == [
            (project.project_id, "RegionOne"),
            (project.project_id, "RegionTwo"),
            (another.project_id, "RegionOne"),
            (another.project_id, "RegionTwo"),
        ]


@pytest.mark.parametrize("written", ["project_name", "project_id"])
async def test_projects_and_regions_are_those_of_the_options_whatever_clouds_yaml_says(
    openstack: OpenStack, project: Project, tmp_path: Path, written: str
) -> None:
    another = openstack.project()
    seed.add_member(openstack.admin, project.name, another.name)
    auth = project.credentials()
    if written == "project_id":
        auth[written] = project.project_id
        del auth["project_name"]
    north = {"auth": auth, "region_name": "RegionOne"}
    path = tmp_path / "clouds.yaml"
    path.write_text(yaml.safe_dump({"clouds": {"north": north}}))
    options = {"cloud": "north", "clouds_file": str(path), "http_timeout": "100s"}
    async with driver_of({**options, "regions": ["RegionOne", "RegionTwo"]}) as cloud:
        assert [region for _, region in await places(cloud)] == ["RegionOne", "RegionTwo"]
    async with driver_of({**options, "project_name": another.name}) as cloud:
        assert await places(cloud) == [(another.project_id, "RegionOne")]


async def test_an_application_credential_is_not_used_for_another_project(project: Project) -> None:
    asked = {"application_credential": {"name": "shepherd", "secret": "s3cret"}}
    path = f"/users/{project.api.user_id}/application_credentials"
    made = project.api.post("identity", path, asked)["application_credential"]
    options = {
        "auth_url": project.credentials()["auth_url"],
        "application_credential_id": made["id"],
        "application_credential_secret": "s3cret",
        "http_timeout": "100s",
    }
    async with driver_of({**options, "project_name": "another"}) as cloud:
        with pytest.raises(Refused, match=f"of project {project.name}, not of another"):
            await cloud.list()
    async with driver_of({**options, "project_name": project.name}) as cloud:
        assert (await cloud.list()).complete


async def test_credentials_that_name_no_project_say_so(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with of_environment(project, monkeypatch, tmp_path) as cloud:
        monkeypatch.delenv("OS_PROJECT_NAME")
        monkeypatch.delenv("OS_PROJECT_DOMAIN_NAME")
        with pytest.raises(Refused, match="they name no project"):
            await cloud.list()


async def test_server_groups_of_which_each_page_is_the_first_are_read_once(
    cloud: OpenstackCloud, proxy: Proxy
) -> None:
    same = OneGroup(group_id="7e0f1c9e-0000-4000-8000-000000000001", name="ops")
    proxy.on("compute", "GET", "/os-server-groups", same, times=5)
    with proxy.counting() as calls:
        found = await cloud.sites[0].inventory.server_group("ops")
    assert found.id == same.group_id
    assert calls["compute GET /os-server-groups"] == 2
