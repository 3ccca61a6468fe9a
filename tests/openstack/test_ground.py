"""The ground that the tests of the driver stand on: the cloud is real, and breaks as it is told."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests.openstack.cloud import program
from tests.openstack.cloud.api import Api, Refused
from tests.openstack.ground import OpenStack, Project, until


def test_a_server_lives_from_order_to_deletion(openstack: OpenStack, project: Project) -> None:
    server_id = project.order("one", metadata={"whose": "mine"}, key_name="ops")
    server = openstack.wait_for(project, server_id, "ACTIVE")
    assert server["addresses"]["private"][0]["addr"].startswith("10.0.")
    assert openstack.servers(project) == {server_id: "active"}
    assert openstack.metadata(server_id) == {"whose": "mine"}
    assert list(openstack.ports(project).values()) == [server_id]
    project.delete(server_id)
    until(lambda: not openstack.servers(project), "it is gone")
    until(lambda: not openstack.ports(project), "its port is gone")


def test_a_project_sees_nothing_of_another(openstack: OpenStack, project: Project) -> None:
    other = openstack.project()
    server_id = project.order("one")
    assert other.api.get("compute", "/servers")["servers"] == []
    with pytest.raises(Refused, match=r"403|404"):
        other.server(server_id)


def test_a_server_says_what_it_is_made_to_say(openstack: OpenStack, project: Project) -> None:
    server_id = project.order("one")
    openstack.wait_for(project, server_id, "ACTIVE")
    before = project.act(server_id, "os-getConsoleOutput", {"length": 2})
    openstack.say(server_id, "booting\npanic\n")
    after = project.act(server_id, "os-getConsoleOutput", {"length": 2})
    assert (before["output"], after["output"]) == ("ANOTHER\nLAST LINE", "panic\n")


def test_what_fits_no_host_ends_in_error_with_the_reason(
    openstack: OpenStack, project: Project
) -> None:
    flavors = project.api.get("compute", "/flavors")["flavors"]
    huge = next(flavor["id"] for flavor in flavors if flavor["name"] == "huge")
    server_id = project.order("one", flavorRef=huge)
    assert "No valid host" in openstack.wait_for_fault(project, server_id)


def test_a_server_is_called_failed_on_demand(openstack: OpenStack, project: Project) -> None:
    server_id = project.order("one")
    openstack.wait_for(project, server_id, "ACTIVE")
    openstack.set_state(server_id, "error")
    assert project.server(server_id)["status"] == "ERROR"
    assert openstack.servers(project) == {server_id: "error"}


def test_a_quota_is_kept(openstack: OpenStack, project: Project) -> None:
    openstack.set_quota(project, instances=1)
    project.order("one")
    openstack.wait_until_counted(project)
    with pytest.raises(Refused, match="Quota exceeded"):
        project.order("two")


def test_a_revoked_token_is_refused_and_a_later_one_taken(
    openstack: OpenStack, project: Project
) -> None:
    url = f"{openstack.place.url('nova')}/v2.1/servers"
    token = project.api.log_in().token
    assert status(url, token) == 200
    openstack.revoke_tokens(project)
    assert status(url, token) == 401
    # Keystone counts in seconds: a token of the same second is revoked, too.
    until(lambda: status(url, project.api.log_in().token) == 200, "a new token is good")


def status(url: str, token: str, *, seconds: float = 60) -> int:
    """What a bare request is answered, or a TimeoutError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url, headers={"X-Auth-Token": token})
        with opener.open(request, timeout=seconds) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_two_regions_have_the_same_services(openstack: OpenStack) -> None:
    endpoints = openstack.admin.get("identity", "/endpoints?interface=public")["endpoints"]
    # Cinder's paths differ: the one region has it as clouds did before, the other as they do today.
    of_region = {
        region: sorted(
            each["url"].removesuffix("/%(project_id)s")
            for each in endpoints
            if each["region_id"] == region
        )
        for region in ("RegionOne", "RegionTwo")
    }
    assert len(of_region["RegionOne"]) == 6
    assert of_region["RegionOne"] == of_region["RegionTwo"]


def test_one_image_exists_twice_for_demo_alone(openstack: OpenStack, project: Project) -> None:
    demo = Api(
        openstack.place.keystone_url, user="demo", password=project.api.password, project="demo"
    )
    for api, owners in ((demo, 2), (project.api, 1)):
        images = api.get("image", "/v2/images?name=twice")["images"]
        assert len({image["owner"] for image in images}) == owners


def test_a_test_that_did_not_say_so_cannot_break_the_cloud(openstack: OpenStack) -> None:
    with pytest.raises(AssertionError, match="alone"):
        openstack.stop("nova-api")
    for fault in (openstack.cell_down(), openstack.cell_silent(), openstack.without("rabbit")):
        with pytest.raises(AssertionError, match="alone"), fault:
            pass
    assert program.lacking(openstack.place) == []


@pytest.mark.alone
def test_servers_of_a_cell_that_is_down_are_unknown_until_it_is_back(
    openstack: OpenStack, project: Project
) -> None:
    hosts = {"cell1": "north:host1", "cell2": "north:host3"}
    openstack.make_admin(project)
    ids = {cell: project.order(cell, availability_zone=host) for cell, host in hosts.items()}
    for cell, server_id in ids.items():
        openstack.wait_for(project, server_id, "ACTIVE")
        assert openstack.cell_of(server_id) == cell
    with openstack.cell_down("cell2"):
        assert statuses(project) == {ids["cell1"]: "ACTIVE", ids["cell2"]: "UNKNOWN"}
    assert statuses(project) == {ids["cell1"]: "ACTIVE", ids["cell2"]: "ACTIVE"}


def statuses(project: Project) -> dict[str, str]:
    """What a listing says."""
    servers = project.api.get("compute", "/servers/detail")["servers"]
    return {server["id"]: server["status"] for server in servers}


@pytest.mark.alone
def test_a_cell_that_is_silent_keeps_who_asks_waiting(
    openstack: OpenStack, project: Project
) -> None:
    url = f"{openstack.place.url('nova')}/v2.1/servers/detail"
    token = project.api.log_in().token
    assert status(url, token) == 200
    with openstack.cell_silent(), pytest.raises(TimeoutError):
        status(url, token, seconds=10)
    assert status(url, token) == 200


@pytest.mark.alone
def test_services_are_stopped_and_come_back(openstack: OpenStack, project: Project) -> None:
    project.api.get("compute", "/servers")
    with openstack.without("nova-api"), pytest.raises(OSError, match="refused"):
        project.api.get("compute", "/servers")
    with openstack.without("rabbit"):
        assert project.api.get("compute", "/servers") == {"servers": []}
    openstack.wait_until_it_builds()
