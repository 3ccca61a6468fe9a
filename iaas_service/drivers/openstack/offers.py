"""Pure: what the services of an OpenStack say they have, as `Thing`s with ranks and facts.

`inventory` reads the JSON.  What cannot be used (an image that is not active, another project's
network) is left out here, so that no name of it stands in the way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from .choose import Thing

Json = Mapping[str, Any]

OWN: Final = 0
TRUSTED: Final = 1
OTHERS: Final = 2


def image(said: Json, *, project_id: str, owners: Collection[str]) -> Thing:
    """An image of Glance; one's own before those of trusted owners before those of others."""
    owner = str(said.get("owner") or "")
    rank = OWN if owner == project_id else TRUSTED if owner in owners else OTHERS
    facts = {
        "family": str(said.get("image_family") or ""),
        "created": str(said.get("created_at") or ""),
        "status": str(said.get("status") or ""),
        "visibility": str(said.get("visibility") or ""),
        "owner": owner,
        "min_disk_gib": int(said.get("min_disk") or 0),
        "min_ram_mib": int(said.get("min_ram") or 0),
        "size_bytes": int(said.get("size") or 0),
    }
    return Thing(id=str(said["id"]), name=str(said.get("name") or ""), rank=rank, facts=facts)


def flavor(said: Json) -> Thing:
    """A flavor of Nova."""
    facts = {
        "vcpus": int(said.get("vcpus") or 0),
        "ram_mib": int(said.get("ram") or 0),
        "disk_gib": int(said.get("disk") or 0),
    }
    return Thing(id=str(said["id"]), name=str(said.get("name") or ""), facts=facts)


def zone(said: Json) -> Thing:
    """An availability zone of Nova, which has no id but its name."""
    name = str(said["zoneName"])
    facts = {"available": bool((said.get("zoneState") or {}).get("available"))}
    return Thing(id=name, name=name, facts=facts)


def key(said: Json) -> Thing:
    """A key pair of the credentials' user, which has no id but its name."""
    name = str(said["keypair"]["name"])
    return Thing(id=name, name=name)


def networks(said: Iterable[Json], *, project_id: str) -> list[Thing]:
    """The networks that VMs of the project can be attached to."""
    return [_network(each, project_id) for each in said if _is_usable_network(each, project_id)]


def subnets(said: Iterable[Json]) -> list[Thing]:
    """All subnets; whose they are their networks say."""
    return [
        Thing(
            id=str(each["id"]),
            name=str(each.get("name") or ""),
            facts={
                "network": str(each["network_id"]),
                "version": int(each.get("ip_version") or 4),
                "cidr": str(each.get("cidr") or ""),
            },
        )
        for each in said
    ]


def security_groups(said: Iterable[Json], *, project_id: str) -> list[Thing]:
    """The project's groups, and before those of others that are shared with it."""
    return [
        Thing(
            id=str(each["id"]),
            name=str(each.get("name") or ""),
            rank=OWN if _project(each) == project_id else OTHERS,
        )
        for each in said
    ]


def server_group(said: Json) -> Thing:
    """A server group of Nova; before microversion 2.64 it has a list of one policy."""
    policy = said.get("policy") or next(iter(said.get("policies") or ()), "")
    return Thing(
        id=str(said["id"]), name=str(said.get("name") or ""), facts={"policy": str(policy)}
    )


def newest_of_family(images: Iterable[Thing], family: str) -> list[Thing]:
    """The images of a family, the newest first: those that bear the property `image_family`, and
    those whose name is the family's, or begins with it and a dash.

    A stranger's never stand before one's own, however new.
    """
    members = [
        each for each in images if each.facts["status"] == "active" and _is_of_family(each, family)
    ]
    by_age = sorted(members, key=lambda each: (each.facts["created"], each.id), reverse=True)
    return sorted(by_age, key=lambda each: each.rank)


def _is_of_family(image: Thing, family: str) -> bool:
    if said := image.facts["family"]:
        return bool(said == family)
    return image.name == family or image.name.startswith(f"{family}-")


def _network(said: Json, project_id: str) -> Thing:
    return Thing(
        id=str(said["id"]),
        name=str(said.get("name") or ""),
        rank=OWN if _project(said) == project_id else OTHERS,
        facts={"subnets": tuple(map(str, said.get("subnets") or ()))},
    )


def _is_usable_network(said: Json, project_id: str) -> bool:
    # What is shared by a rule for this project alone says `shared`, too.
    return _project(said) == project_id or bool(said.get("shared"))


def _project(said: Json) -> str:
    return str(said.get("project_id") or said.get("tenant_id") or "")
