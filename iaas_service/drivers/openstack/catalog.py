"""What can be ordered in one place, and how much of it is left.

`cloud` asks, for `ListCatalog` and for the checks.  Offers may be a minute old, quotas never are.
Of quotas only Nova's are indispensable: what another service does not tell is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from vmshepherd_kit.errors import ShepherdError

from ...domain import Catalog, CatalogEntry, CatalogKind, Quota
from .choose import Thing
from .inventory import Inventory
from .quotas import cinder_quotas, nova_quotas, quota

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
        return [quota("ports", port["limit"], port["used"])]
    except (ShepherdError, KeyError, TypeError):
        return []


async def _volumes(inventory: Inventory) -> list[Quota]:
    access = await inventory.api.access()
    if "volume" not in access.endpoints:
        return []
    try:
        said = await inventory.api.get("volume", "/limits")
        return cinder_quotas(said["limits"]["absolute"])
    except (ShepherdError, KeyError, TypeError):
        return []


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
