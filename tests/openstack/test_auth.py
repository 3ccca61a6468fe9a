"""Logging in, and staying logged in, at a real Keystone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from iaas_service.domain import Vm, VmId
from iaas_service.testing import an_order, eventually
from tests.openstack.cloud.place import PASSWORD
from tests.openstack.driver import driver, driver_of, eventually_lists
from tests.openstack.faults import Closed, Refusal
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    ShepherdError,
    Unauthenticated,
    Unavailable,
)

LOGIN = "identity POST /auth/tokens"


async def test_a_cloud_that_is_away_at_the_start_is_no_reason_not_to_start(
    project: Project, proxy: Proxy
) -> None:
    away = proxy.on("identity", "*", ".*", Closed(forwarded=False))
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        assert away.met == [], "starting touches no network"
        with pytest.raises(Unavailable, match="cannot be asked for a token"):
            await cloud.list()
        proxy.calm()
        await eventually_lists(cloud)


async def test_callers_side_by_side_share_one_login(project: Project, proxy: Proxy) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        with proxy.counting() as calls:
            await asyncio.gather(*(cloud.get([VmId("no-such-vm")]) for _ in range(20)))
        assert calls[LOGIN] == 1


async def test_revoked_tokens_are_renewed_once_for_all_callers(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        await asyncio.to_thread(openstack.revoke_tokens, project)
        with proxy.counting() as calls:
            answers = await asyncio.gather(*(cloud.get([VmId("no-such-vm")]) for _ in range(10)))
        assert all(isinstance(answer, NotFound) for [answer] in answers)
        assert calls[LOGIN] == 1


async def test_a_create_that_meets_a_token_that_has_ended_is_done_once(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.catalog()
        refused = proxy.on(
            "compute", "POST", "/servers", Refusal(status=401, forwarded=False), times=1
        )
        vm = await cloud.create(an_order())
        assert len(refused.met) == 1
        assert list(await asyncio.to_thread(openstack.servers, project)) == [vm.vm_id]


async def test_wrong_credentials_are_told_in_the_clouds_words_and_not_tried_over_and_over(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url, password="wrong-one") as cloud:
        with proxy.counting() as calls:
            for _ in range(5):
                with pytest.raises(Unauthenticated, match="requires authentication"):
                    await cloud.list()
        assert calls[LOGIN] == 1


async def test_a_token_serves_as_credentials(project: Project) -> None:
    given = project.credentials()
    async with driver_of(
        {
            "auth_url": given["auth_url"],
            "token": project.api.token,
            "project_name": project.name,
            "project_domain_name": "Default",
        }
    ) as cloud:
        assert (await cloud.list()).complete


async def test_an_application_credential_serves_as_one(project: Project, tmp_path: Path) -> None:
    asked = {"application_credential": {"name": "suite", "roles": [{"name": "member"}]}}
    path = f"/users/{project.api.user_id}/application_credentials"
    made = await asyncio.to_thread(project.api.post, "identity", path, asked)
    (tmp_path / "secret").write_text(made["application_credential"]["secret"])
    async with driver_of(
        {
            "auth_url": project.credentials()["auth_url"],
            "application_credential_id": made["application_credential"]["id"],
            "application_credential_secret_file": str(tmp_path / "secret"),
        }
    ) as cloud:
        assert (await cloud.list()).complete


async def test_a_password_that_was_changed_on_disk_is_taken_without_a_restart(
    project: Project, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("not yet the right one")
    given = {key: value for key, value in project.credentials().items() if key != "password"}
    async with driver_of({**given, "password_file": str(file)}) as cloud:
        with pytest.raises(Unauthenticated):
            await cloud.list()
        file.write_text(PASSWORD)

        async def lists() -> bool:
            try:
                return (await cloud.list()).complete
            except Unauthenticated:
                return False

        await eventually(lists)


async def test_a_cloud_of_clouds_yaml_is_used(openstack: OpenStack) -> None:
    file = openstack.place.folder / "clouds.yaml"
    async with driver_of({"cloud": "demo", "clouds_file": str(file)}) as cloud:
        assert (await cloud.list()).complete


async def test_vms_live_in_the_project_that_their_preset_chooses(openstack: OpenStack) -> None:
    given = {
        "auth_url": openstack.place.keystone_url,
        "username": "demo",
        "password": PASSWORD,
        "project_domain_name": "Default",
        "projects": ["demo", "demo2"],
        "http_timeout": "100s",
    }
    order = an_order()
    order = type(order)(
        name=order.name,
        marker=order.marker,
        spec=type(order.spec)(flavor="small", image="debian", options={"project": "demo2"}),
    )
    async with driver_of(given) as cloud, driver_of({**given, "projects": ["demo2"]}) as there:
        vm = await cloud.create(order)
        try:
            assert vm.vm_id in {each.vm_id for each in (await there.list()).vms}
            assert vm.vm_id in {each.vm_id for each in (await cloud.list()).vms}
            async with driver_of(given) as newcomer:
                [found] = await newcomer.get([vm.vm_id])
                assert isinstance(found, Vm), "it is in the second of the places"
        finally:
            assert await cloud.terminate(vm)
    async with driver_of({**given, "projects": ["demo"]}) as here:
        [found] = await here.get([vm.vm_id])
        assert isinstance(found, NotFound)
        with pytest.raises(BadRequest, match="this provider offers demo"):
            await here.create(order)


async def test_a_region_that_the_catalogue_does_not_have_is_named(project: Project) -> None:
    async with driver(project, region="Atlantis") as cloud:
        with pytest.raises(ShepherdError, match="Atlantis") as told:
            await cloud.list()
        assert told.value.reason == "NO_SUCH_SERVICE"


async def test_another_region_has_endpoints_of_its_own(project: Project) -> None:
    async with driver(project, region="RegionTwo") as cloud:
        assert (await cloud.list()).complete
