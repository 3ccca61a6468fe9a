"""Pure: whether the quotas of a provider leave room for what its presets still want.

`doctor` asks.  A flavor that the catalog does not show counts with no cores and no memory: then
only the number of VMs is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vmshepherd.iaas.v1.iaas_service_pb2 import CATALOG_KIND_FLAVOR, CatalogEntry, Quota


@dataclass(frozen=True, kw_only=True)
class Wish:
    """VMs of one flavor that are still to be made."""

    flavor: str
    vms: int


def shortages(
    wishes: Iterable[Wish], quotas: Iterable[Quota], entries: Iterable[CatalogEntry]
) -> Iterator[str]:
    """What is wanted beyond the quotas, a sentence a resource."""
    wanted = _wanted(wishes, _sizes(entries))
    for quota in quotas:
        left = max(quota.limit - quota.used, 0) if quota.HasField("limit") else None
        need = wanted.get(quota.resource, 0)
        if left is not None and need > left:
            limit = f"{quota.used} of {quota.limit} are used"
            yield f"{need} {quota.resource} more are wanted, and {left} are left ({limit})"


def _sizes(entries: Iterable[CatalogEntry]) -> Mapping[str, tuple[int, int]]:
    sizes = {}
    for entry in entries:
        if entry.kind == CATALOG_KIND_FLAVOR:
            size = _number(entry.details["vcpus"]), _number(entry.details["ram_mib"])
            sizes[entry.name] = sizes[entry.id] = size
    return sizes


def _wanted(wishes: Iterable[Wish], sizes: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    wanted = {"vms": 0, "cores": 0, "ram_mib": 0}
    for wish in wishes:
        cores, ram_mib = sizes.get(wish.flavor, (0, 0))
        wanted["vms"] += wish.vms
        wanted["cores"] += wish.vms * cores
        wanted["ram_mib"] += wish.vms * ram_mib
    return wanted


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
