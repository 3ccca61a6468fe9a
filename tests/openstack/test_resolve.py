"""What the names of a spec stand for on a real cloud, found without making anything."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from iaas_service.domain import Attachment, Spec
from iaas_service.drivers.openstack import OpenstackCloud
from iaas_service.drivers.openstack.resolve import Resolved
from iaas_service.testing import eventually
from tests.openstack.clocks import LeapingClock
from tests.openstack.cloud import seed
from tests.openstack.driver import driver
from tests.openstack.faults import Refusal, Unanswered, Unlisted
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import BadRequest, NotFound, ShepherdError, Unavailable


@pytest.fixture
async def cloud(openstack: OpenStack, home: Project) -> AsyncIterator[OpenstackCloud]:
    async with driver(home) as cloud:
        yield cloud


async def resolved(cloud: OpenstackCloud, **fields: Any) -> Resolved:
    spec = Spec(**{"flavor": "small", "image": "debian", **fields})
    return await cloud.sites[0].creator.resolver.resolve(spec)


async def fault(cloud: OpenstackCloud, **fields: Any) -> ShepherdError:
    with pytest.raises(ShepherdError) as refusal:
        await resolved(cloud, **fields)
    return refusal.value


def fields(error: ShepherdError) -> list[str]:
    return [violation.field for violation in error.violations]


async def test_names_and_ids_stand_for_the_same(cloud: OpenstackCloud) -> None:
    by_name = await resolved(
        cloud,
        networks=(Attachment(network="private"),),
        security_groups=("web",),
        availability_zone="north",
        key_name="ops",
    )
    by_id = await resolved(
        cloud,
        image=by_name.image.id,
        flavor=by_name.flavor.id,
        networks=(Attachment(network=by_name.interfaces[0].network.id),),
        security_groups=(by_name.security_groups[0].id,),
        availability_zone="north",
        key_name="ops",
    )
    assert by_id == by_name
    assert (by_name.zone, by_name.key_name) == ("north", "ops")


async def test_a_subnet_stands_for_its_network(cloud: OpenstackCloud) -> None:
    by_subnet = await resolved(cloud, networks=(Attachment(subnet="private-subnet"),))
    by_both = await resolved(
        cloud, networks=(Attachment(network="private", subnet="private-subnet"),)
    )
    assert by_subnet.interfaces[0].network.name == "private"
    assert by_both == by_subnet


async def test_where_there_is_one_network_nobody_needs_to_name_it(cloud: OpenstackCloud) -> None:
    assert [each.network.name for each in (await resolved(cloud)).interfaces] == ["private"]


MISSPELT: list[tuple[dict[str, Any], str, str]] = [
    ({"flavor": "smal"}, "spec.flavor", "small"),
    ({"image": "debain"}, "spec.image", "debian"),
    ({"key_name": "op"}, "spec.key_name", "ops"),
    ({"security_groups": ("wep",)}, "spec.security_groups", "web"),
    ({"availability_zone": "nort"}, "spec.availability_zone", "north"),
    ({"networks": (Attachment(network="privat"),)}, "spec.networks", "private"),
    ({"networks": (Attachment(subnet="private-subne"),)}, "spec.networks", "private-subnet"),
]


async def test_what_is_misspelt_is_named_with_the_nearest(cloud: OpenstackCloud) -> None:
    for wrong, field, nearest in MISSPELT:
        error = await fault(cloud, **wrong)
        assert isinstance(error, NotFound)
        assert fields(error) == [field]
        assert f"did you mean {nearest!r}?" in error.message


async def test_an_id_that_nobody_has_is_named_too(cloud: OpenstackCloud) -> None:
    nobody = "00000000-0000-4000-8000-000000000000"
    assert fields(await fault(cloud, image=nobody)) == ["spec.image"]
    assert fields(await fault(cloud, security_groups=(nobody,))) == ["spec.security_groups"]


async def test_several_faults_are_told_at_once(cloud: OpenstackCloud) -> None:
    error = await fault(cloud, image="debain", flavor="smal", key_name="op")
    assert isinstance(error, BadRequest)
    assert fields(error) == ["spec.image", "spec.flavor", "spec.key_name"]


async def test_an_address_outside_of_the_network_is_refused(cloud: OpenstackCloud) -> None:
    error = await fault(cloud, options={"fixed_ip": "192.0.2.1"})
    assert fields(error) == ["spec.options.fixed_ip"]
    assert "10.0.0.0/16" in error.message


async def test_a_volume_is_refused_where_there_is_no_cinder(
    openstack: OpenStack, home: Project, proxy: Proxy
) -> None:
    proxy.on("identity", "POST", "/auth/tokens", Unlisted(service="volume"))
    async with driver(home, auth_url=proxy.auth_url, region="RegionOne") as cloud:
        error = await fault(cloud, options={"boot_volume": {"size": 20}})
    assert fields(error) == ["spec.options.boot_volume"]


async def test_ones_own_image_is_meant_before_a_public_one(
    cloud: OpenstackCloud, openstack: OpenStack, home: Project
) -> None:
    public = (await resolved(cloud, image="twice")).image
    own = seed.add_image(home.api, "twice", visibility="private")
    async with driver(home) as fresh:
        assert public.id != own
        assert (await resolved(fresh, image="twice")).image.id == own
        assert (await resolved(fresh, image=public.id)).image.id == public.id


async def test_a_trusted_owners_image_is_meant_before_anybodys(
    openstack: OpenStack, home: Project
) -> None:
    owner = openstack.project()
    try:
        openstack.make_admin(owner)
        # Everybody sees it: one of which no test beside this one makes a VM.
        seed.add_image(owner.api, "ubuntu-xenial", visibility="public")
        async with driver(home) as cloud:
            error = await fault(cloud, image="ubuntu-xenial")
            assert isinstance(error, BadRequest)
            assert "say which by its id" in error.message
        async with driver(home, image_owner_ids=[owner.project_id]) as cloud:
            image = (await resolved(cloud, image="ubuntu-xenial")).image
            assert image.facts["owner"] == owner.project_id
    finally:
        for each in owner.api.get("image", f"/v2/images?owner={owner.project_id}")["images"]:
            owner.api.delete("image", f"/v2/images/{each['id']}")


async def test_the_newest_of_a_family_is_meant(
    cloud: OpenstackCloud, openstack: OpenStack, home: Project
) -> None:
    older = seed.add_image(home.api, "golden-1", visibility="private")
    options = {"image_family": "golden"}
    assert (await resolved(cloud, image="", options=options)).image.id == older
    newer = _image_after(home, older, "golden-2")
    async with driver(home) as fresh:
        assert (await resolved(fresh, image="", options=options)).image.id == newer
    error = await fault(cloud, image="", options={"image_family": "golde"})
    assert fields(error) == ["spec.options.image_family"]
    # Which of the two, depends on whether the images were read anew meanwhile.
    assert "did you mean 'golden-" in error.message


def _image_after(home: Project, older: str, name: str) -> str:
    """An image of a later second: Glance tells no fractions."""
    created = home.api.get("image", f"/v2/images/{older}")["created_at"]
    while True:
        made = seed.add_image(home.api, name, visibility="private")
        if home.api.get("image", f"/v2/images/{made}")["created_at"] > created:
            return made
        home.api.delete("image", f"/v2/images/{made}")


async def test_an_image_that_has_no_data_yet_is_named_with_its_state(
    cloud: OpenstackCloud, home: Project
) -> None:
    wanted = {"name": "coming", "disk_format": "raw", "container_format": "bare"}
    home.api.post("image", "/v2/images", wanted)
    error = await fault(cloud, image="coming")
    assert "'coming' is queued" in error.message


async def test_of_two_networks_one_must_be_named(openstack: OpenStack) -> None:
    project = openstack.project()
    network = project.api.post("network", "/v2.0/networks", {"network": {"name": "inner"}})
    try:
        async with driver(project) as cloud:
            error = await fault(cloud)
            assert fields(error) == ["spec.networks"]
            assert "inner, private" in error.message
            assert (await resolved(cloud, options={"networks": "none"})).networks == "none"
    finally:
        project.api.delete("network", f"/v2.0/networks/{network['network']['id']}")


async def test_one_of_two_subnets_cannot_be_chosen_and_is_not_pretended_to_be(
    openstack: OpenStack,
) -> None:
    project = openstack.project()
    network = project.api.post("network", "/v2.0/networks", {"network": {"name": "inner"}})
    network_id = network["network"]["id"]
    for n in (1, 2):
        subnet = {
            "name": f"s{n}",
            "network_id": network_id,
            "ip_version": 4,
            "cidr": f"10.{n}.0.0/24",
        }
        project.api.post("network", "/v2.0/subnets", {"subnet": subnet})
    try:
        async with driver(project) as cloud:
            error = await fault(cloud, networks=(Attachment(subnet="s2"),))
            assert "has the subnets s1, s2, and Nova chooses among them" in error.message
            named = (Attachment(network="inner"),)
            fixed = await resolved(cloud, networks=named, options={"fixed_ip": "10.2.0.9"})
            assert fixed.interfaces[0].fixed_ip == "10.2.0.9"
    finally:
        project.api.delete("network", f"/v2.0/networks/{network_id}")


async def test_two_security_groups_of_one_name_are_told_by_their_ids(
    openstack: OpenStack,
) -> None:
    project = openstack.project()
    twin = project.api.post("network", "/v2.0/security-groups", {"security_group": {"name": "web"}})
    async with driver(project) as cloud:
        error = await fault(cloud, security_groups=("web",))
        assert isinstance(error, BadRequest)
        assert twin["security_group"]["id"] in error.message


async def test_a_batch_costs_one_reading_of_each_kind(home: Project, proxy: Proxy) -> None:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        with proxy.counting() as calls:
            for _ in range(20):
                await resolved(cloud, security_groups=("web",))
        assert {kind: number for kind, number in calls.items() if number > 1} == {}
        begun = time.monotonic()
        with proxy.counting() as calls:
            for _ in range(20):
                await fault(cloud, flavor="smal")
        # A reading is believed for two seconds, and a slow machine may need more.
        assert calls["compute GET /flavors/detail"] <= 2 + (time.monotonic() - begun) / 2
        assert not [kind for kind in calls if "POST" in kind and "servers" in kind]


async def test_a_catalogue_that_fails_is_no_fault_of_the_spec(home: Project, proxy: Proxy) -> None:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        with proxy.while_("image", "GET", "/images", Refusal(status=503)):
            error = await fault(cloud, flavor="smal")
        assert isinstance(error, Unavailable)
        assert fields(await fault(cloud, flavor="smal")) == ["spec.flavor"]


async def test_after_a_quiet_hour_no_name_is_waited_for_while_somebody_watches(
    home: Project, proxy: Proxy
) -> None:
    clock = LeapingClock()
    kinds = ["compute GET /flavors/detail", "image GET /images", "network GET /networks"]
    async with driver(home, auth_url=proxy.auth_url, clock=clock) as cloud:
        await resolved(cloud)
        with cloud.watch():
            for _ in range(2):
                before = proxy.calls.copy()
                clock.leap(timedelta(minutes=30))
                await eventually(are_read(proxy, kinds, before))
        for kind in kinds:
            service, method, path = kind.split()
            proxy.on(service, method, path, Unanswered(forwarded=False))
        assert (await resolved(cloud)).flavor.name == "small"


def are_read(proxy: Proxy, kinds: list[str], before: Counter[str]) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return all(proxy.calls[kind] > before[kind] for kind in kinds)

    return check
