"""What the cloud offers from its start: projects, two regions, flavors, images, a network, a zone.

Every step looks first, so that it may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .api import Api
from .place import PASSWORD, Place
from .services import HOSTS

REGIONS: Final = ("RegionOne", "RegionTwo")
# Of each region: type, name and path of Cinder, as clouds of before and of today have it.
VOLUMES: Final = (
    ("volumev3", "cinderv3", "/v3/%(project_id)s"),
    ("block-storage", "cinder", "/v3"),
)
VOLUME_TYPES: Final = ("fast",)  # beside `__DEFAULT__`
ZONE: Final = "north"
# Memory in MiB, processors, disk in GiB.
FLAVORS: Final = {
    "m1.tiny": (64, 1, 1),
    "small": (512, 1, 10),
    "medium": (2048, 2, 20),
    "large": (8192, 4, 80),
    "huge": (999_999_999, 1, 1),  # fits no host
}
# The last is made twice: by the admin for everybody, and by demo for itself.
IMAGES: Final = ("debian", "debian-13", "ubuntu-xenial", "twice")
# A public key, whose private one nobody has.
KEY: Final = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0vD1FvPdB7Iq1zg6YGAsuEYWQGrJ7hL0Nj0fW5zQ3c ops@example"
)


def admin(place: Place) -> Api:
    """The API of whoever runs the cloud."""
    return Api(place.keystone_url, user="admin", password=PASSWORD, project="admin")


def demo(place: Place) -> Api:
    """The API of a user like any other."""
    return Api(place.keystone_url, user="demo", password=PASSWORD, project="demo")


def identity(place: Place) -> None:
    """Users, projects, and where the services are; Keystone alone has to run."""
    api = admin(place)
    for name in ("service", "demo", "demo2"):
        add_project(api, name)
    for user, project, role in (
        ("service", "service", "admin"),
        ("demo", "demo", "member"),
        ("demo", "demo2", "member"),
    ):
        add_member(api, user, project, role)
    _regions(place, api)


def add_project(api: Api, name: str) -> str:
    """The id of the project of that name, made when there is none."""
    body = {"project": {"name": name, "domain_id": "default"}}
    return _made(api, "identity", "/projects", body)


def add_member(api: Api, user: str, project: str, role: str = "member") -> str:
    """The id of the user, who has that role in that project."""
    wanted = {"name": user, "password": PASSWORD, "domain_id": "default"}
    user_id = _made(api, "identity", "/users", {"user": wanted})
    project_id = _id(api, "identity", "/projects", project)
    role_id = _id(api, "identity", "/roles", role)
    api.put("identity", f"/projects/{project_id}/users/{user_id}/roles/{role_id}")
    return user_id


def _regions(place: Place, api: Api) -> None:
    """Both regions are the same services; Cinder goes by either of its names."""
    known = {region["id"] for region in api.get("identity", "/regions")["regions"]}
    for region in REGIONS:
        if region not in known:
            api.post("identity", "/regions", {"region": {"id": region}})
    for kind, name, url in (
        ("identity", "keystone", place.keystone_url),
        ("image", "glance", place.url("glance")),
        ("placement", "placement", place.url("placement")),
        ("network", "neutron", place.url("neutron")),
        ("compute", "nova", f"{place.url('nova')}/v2.1"),
    ):
        _endpoints(api, _service(api, kind, name), url, REGIONS)
    for region, (kind, name, path) in zip(REGIONS, VOLUMES, strict=True):
        _endpoints(api, _service(api, kind, name), place.url("cinder") + path, [region])


def _service(api: Api, kind: str, name: str) -> str:
    return _made(api, "identity", "/services", {"service": {"name": name, "type": kind}})


def _endpoints(api: Api, service: str, url: str, regions: Sequence[str]) -> None:
    known = api.get("identity", f"/endpoints?service_id={service}")["endpoints"]
    has = {(endpoint["region_id"], endpoint["interface"]) for endpoint in known}
    for region in regions:
        for interface in ("public", "internal", "admin"):
            if (region, interface) not in has:
                wanted = {"service_id": service, "interface": interface, "url": url}
                api.post("identity", "/endpoints", {"endpoint": {**wanted, "region_id": region}})


def has_volumes(place: Place) -> bool:
    """Whether Cinder's scheduler has heard of one who makes them."""
    return bool(admin(place).get("volumev3", "/scheduler-stats/get_pools")["pools"])


def contents(place: Place) -> None:
    """What can be ordered; all services have to run."""
    api = admin(place)
    for name, (ram, vcpus, disk) in FLAVORS.items():
        body = {"flavor": {"name": name, "ram": ram, "vcpus": vcpus, "disk": disk}}
        _made(api, "compute", "/flavors", body)
    for name in IMAGES:
        add_image(api, name, visibility="public")
    for name in VOLUME_TYPES:
        _made(api, "volumev3", "/types", {"volume_type": {"name": name}})
    _network(api)
    _zone(api)
    add_image(demo(place), "twice", visibility="private")
    equip(demo(place))


def add_image(api: Api, name: str, *, visibility: str) -> str:
    """The id of an image of that project, made when it has none of that name."""
    project_id = api.project_id or api.log_in().project_id
    found = api.get("image", f"/v2/images?name={name}&owner={project_id}")["images"]
    if found:
        return str(found[0]["id"])
    wanted = {"name": name, "disk_format": "raw", "container_format": "bare"}
    made = api.post("image", "/v2/images", {**wanted, "visibility": visibility})["id"]
    api.put("image", f"/v2/images/{made}/file", b"an image of no use" * 100)
    return str(made)


def _network(api: Api) -> None:
    """One that all projects use."""
    wanted = {"name": "private", "shared": True}
    network = _made(api, "network", "/v2.0/networks", {"network": wanted})
    subnet = {"network_id": network, "name": "private-subnet", "ip_version": 4}
    subnet |= {"cidr": "10.0.0.0/16", "enable_dhcp": False}
    _made(api, "network", "/v2.0/subnets", {"subnet": subnet})


def _zone(api: Api) -> None:
    """All hosts are in it."""
    known = api.get("compute", "/os-aggregates")["aggregates"]
    if any(aggregate["name"] == ZONE for aggregate in known):
        return
    wanted = {"aggregate": {"name": ZONE, "availability_zone": ZONE}}
    made = api.post("compute", "/os-aggregates", wanted)["aggregate"]["id"]
    for host in HOSTS:
        api.post("compute", f"/os-aggregates/{made}/action", {"add_host": {"host": host}})


def equip(api: Api) -> None:
    """What a user has of its own: the key `ops`, the security group `web`."""
    keys = api.get("compute", "/os-keypairs")["keypairs"]
    if not keys:
        wanted = {"name": "ops", "type": "ssh", "public_key": KEY}
        api.post("compute", "/os-keypairs", {"keypair": wanted})
    _made(api, "network", "/v2.0/security-groups", {"security_group": {"name": "web"}})


def _made(api: Api, service: str, path: str, body: dict[str, Any]) -> str:
    """The id of the thing of that name, made when there is none."""
    [(kind, wanted)] = body.items()
    known = _id(api, service, path, wanted["name"])
    return known or str(api.post(service, path, body)[kind]["id"])


def _id(api: Api, service: str, path: str, name: str) -> str:
    """ "" when there is none."""
    asked = path if service in {"compute", "volumev3"} else f"{path}?name={name}"
    [found] = (value for value in api.get(service, asked).values() if isinstance(value, list))
    return next((str(each["id"]) for each in found if each["name"] == name), "")
