"""What Glance, Nova and Neutron said (Zed), as things with ranks."""

from __future__ import annotations

from typing import Any

from iaas_service.drivers.openstack import offers
from iaas_service.drivers.openstack.choose import Thing

OWN = "7ca00120344c4bb5902331477b894542"
TRUSTED = "168c9e690c4147a484a2ab10468bbc49"

IMAGE: dict[str, Any] = {
    "name": "ubuntu-xenial",
    "disk_format": "raw",
    "visibility": "public",
    "size": 3000,
    "status": "active",
    "min_ram": 0,
    "min_disk": 0,
    "owner": TRUSTED,
    "os_hidden": False,
    "id": "acae0ed1-3dcf-47ea-a1a7-a7092f47abbf",
    "created_at": "2026-11-23T01:38:09Z",
}
NETWORK: dict[str, Any] = {
    "id": "0dc5376d-b859-4433-8933-cb4733987592",
    "name": "private",
    "tenant_id": TRUSTED,
    "admin_state_up": True,
    "subnets": ["a1c134bd-89fa-47d7-a57e-75bcb55535ee"],
    "shared": True,
    "router:external": False,
    "project_id": TRUSTED,
}


def image(**said: Any) -> Thing:
    return offers.image({**IMAGE, **said}, project_id=OWN, owners={TRUSTED})


def test_ones_own_image_comes_before_a_trusted_owners_before_anybodys() -> None:
    ranks = [image(owner=owner).rank for owner in (OWN, TRUSTED, "0" * 32, None)]
    assert ranks == [offers.OWN, offers.TRUSTED, offers.OTHERS, offers.OTHERS]


def test_a_family_is_known_by_its_property_or_by_the_beginning_of_the_name() -> None:
    by_name = image(id="1", name="debian-13-20261101", created_at="2026-11-01T00:00:00Z")
    by_property = image(
        id="2", name="golden", image_family="debian", created_at="2026-11-02T00:00:00Z"
    )
    elsewhere = image(
        id="3", name="debian-x", image_family="other", created_at="2026-11-03T00:00:00Z"
    )
    similar = image(id="4", name="debianized", created_at="2026-11-04T00:00:00Z")
    found = offers.newest_of_family([by_name, by_property, elsewhere, similar], "debian")
    assert [each.id for each in found] == ["2", "1"]


def test_a_strangers_newer_image_never_stands_before_ones_own() -> None:
    ours = image(id="1", name="debian-1", owner=OWN, created_at="2026-01-01T00:00:00Z")
    newer = image(id="2", name="debian-2", owner="0" * 32, created_at="2026-11-01T00:00:00Z")
    assert [each.id for each in offers.newest_of_family([newer, ours], "debian")] == ["1", "2"]


def test_an_image_that_is_not_active_is_no_member_of_a_family() -> None:
    assert offers.newest_of_family([image(name="debian-1", status="queued")], "debian") == []


def test_networks_that_nobody_shares_with_us_are_none() -> None:
    foreign = {**NETWORK, "id": "2", "shared": False}
    own = {**NETWORK, "id": "3", "shared": False, "project_id": OWN}
    found = offers.networks([NETWORK, foreign, own], project_id=OWN)
    assert [(each.id, each.rank) for each in found] == [
        (NETWORK["id"], offers.OTHERS),
        ("3", offers.OWN),
    ]


def test_a_flavor_tells_its_size() -> None:
    flavor = offers.flavor({"id": "7", "name": "small", "ram": 512, "disk": 10, "vcpus": 1})
    assert flavor.facts == {"vcpus": 1, "ram_mib": 512, "disk_gib": 10}


def test_a_zone_says_whether_it_is_available() -> None:
    said = {"zoneName": "north", "zoneState": {"available": False}, "hosts": None}
    assert offers.zone(said).facts["available"] is False


def test_a_server_group_has_one_policy_whichever_microversion_told() -> None:
    old = offers.server_group({"id": "1", "name": "g", "policies": ["anti-affinity"]})
    new = offers.server_group({"id": "1", "name": "g", "policy": "anti-affinity", "rules": {}})
    assert old == new


def test_ones_own_security_group_comes_before_another_projects() -> None:
    own = {"id": "1", "name": "web", "project_id": OWN}
    shared = {"id": "2", "name": "web", "tenant_id": TRUSTED}
    found = offers.security_groups([shared, own], project_id=OWN)
    assert [(each.id, each.rank) for each in found] == [("2", offers.OTHERS), ("1", offers.OWN)]
