"""What can be ordered in one place, and how much of it is left.

`cloud` asks, for `ListCatalog` and for the checks.  Offers may be a minute old, quotas never are.
Of quotas only Nova's are indispensable: what another service does not tell is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from vmshepherd_kit.errors import ShepherdError

from ...domain import Catalog, CatalogEntry, CatalogKind, Quota
from .choose import Thing
from .inventory import Inventory

Json = Mapping[str, Any]

# Nova's words for a limit and for what is used of it.
_NOVA: Final = (
    ("vms", "maxTotalInstances", "totalInstancesUsed"),
    ("cores", "maxTotalCores", "totalCoresUsed"),
    ("ram_mib", "maxTotalRAMSize", "totalRAMUsed"),
    ("server_groups", "maxServerGroups", "totalServerGroupsUsed"),
)
_CINDER: Final = (
    ("volumes", "maxTotalVolumes", "totalVolumesUsed"),
    ("volume_gib", "maxTotalVolumeGigabytes", "totalGigabytesUsed"),
)
_SHOWN: Final = ("vcpus", "ram_mib", "disk_gib", "visibility", "status", "family", "created")


async def catalog(inventory: Inventory) -> Catalog:
    """Images, flavors, zones and networks; quotas."""
    flavors, images, zones, networks, quotas = await asyncio.gather(
        inventory.flavors(),
        inventory.images(),
        inventory.zones(),
        _networks(inventory),
        read_quotas(inventory),
    )
    entries = [
        *_entries(CatalogKind.IMAGE, images),
        *_entries(CatalogKind.FLAVOR, flavors),
        *_entries(CatalogKind.ZONE, (zone for zone in zones if zone.facts["available"])),
        *_entries(CatalogKind.NETWORK, networks),
    ]
    return Catalog(entries=entries, quotas=quotas)


async def read_quotas(inventory: Inventory) -> Sequence[Quota]:
    """The limits of the project, as they are now."""
    api = inventory.api
    said = await api.get("compute", "/limits")
    found = nova_quotas(said["limits"]["absolute"])
    return [*found, *await _ports(inventory), *await _volumes(inventory)]


def nova_quotas(absolute: Json) -> list[Quota]:
    """Those of Nova; -1 is no limit, and one that it does not tell is left out."""
    return _of_limits(absolute, _NOVA)


async def _networks(inventory: Inventory) -> Sequence[Thing]:
    access = await inventory.api.access()
    return await inventory.networks() if "network" in access.endpoints else ()


async def _ports(inventory: Inventory) -> list[Quota]:
    access = await inventory.api.access()
    if "network" not in access.endpoints:
        return []
    try:
        path = f"/quotas/{access.project_id}/details.json"
        said = await inventory.api.get("network", path)
        port = said["quota"]["port"]
        return [_quota("ports", port["limit"], port["used"])]
    except (ShepherdError, KeyError, TypeError):
        return []


async def _volumes(inventory: Inventory) -> list[Quota]:
    access = await inventory.api.access()
    if "volume" not in access.endpoints:
        return []
    try:
        said = await inventory.api.get("volume", "/limits")
        return _of_limits(said["limits"]["absolute"], _CINDER)
    except (ShepherdError, KeyError, TypeError):
        return []


def _of_limits(absolute: Json, names: Iterable[tuple[str, str, str]]) -> list[Quota]:
    return [
        _quota(resource, absolute[most], absolute[used])
        for resource, most, used in names
        if most in absolute and used in absolute
    ]


def _quota(resource: str, limit: int, used: int) -> Quota:
    return Quota(resource=resource, limit=None if limit < 0 else limit, used=max(used, 0))


def _entries(kind: CatalogKind, things: Iterable[Thing]) -> list[CatalogEntry]:
    return [
        CatalogEntry(
            kind=kind,
            id=thing.id,
            name=thing.name,
            details={
                key: str(thing.facts[key])
                for key in _SHOWN
                if thing.facts.get(key) not in {None, ""}
            },
        )
        for thing in things
    ]
