"""Pure: whether the quotas of a provider leave room for what its presets still want.

`doctor` asks.  A flavor that the catalog does not show counts with no cores and no memory: then
only the number of VMs is judged.  Of a provider with several places each quota names its own, as in
`vms (project web in region North)`, and counts only what presets want there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vmshepherd.iaas.v1.iaas_service_pb2 import CATALOG_KIND_FLAVOR, CatalogEntry, Quota


@dataclass(frozen=True, kw_only=True)
class Wish:
    """VMs of one flavor that are still to be made, and where."""

    flavor: str
    vms: int
    ports: int = 0
    """How many each of them has."""
    project: str = ""
    region: str = ""
    """"" leaves it to the provider, which takes the first that fits."""

    def fits(self, place: str) -> bool:
        """Whether its VMs may be made there."""
        chosen = (("project", self.project), ("region", self.region))
        return all(f" in {kind} {name} in " in f" in {place} in " for kind, name in chosen if name)


def shortages(
    wishes: Iterable[Wish], quotas: Sequence[Quota], entries: Iterable[CatalogEntry]
) -> Iterator[str]:
    """What is wanted beyond the quotas, a sentence a resource."""
    wanted = _wanted(wishes, _places(quotas), _sizes(entries))
    for quota in quotas:
        left = max(quota.limit - quota.used, 0) if quota.HasField("limit") else None
        need = wanted.get(_split(quota), 0)
        if left is not None and need > left:
            limit = f"{quota.used} of {quota.limit} are used"
            yield f"{need} {quota.resource} more are wanted, and {left} are left ({limit})"


def _split(quota: Quota) -> tuple[str, str]:
    """What is limited, and where: "" when the provider is one place."""
    resource, _, place = quota.resource.partition(" (")
    return resource, place.removesuffix(")")


def _places(quotas: Iterable[Quota]) -> Sequence[str]:
    """In the provider's order."""
    return list(dict.fromkeys(_split(quota)[1] for quota in quotas))


def _sizes(entries: Iterable[CatalogEntry]) -> Mapping[str, tuple[int, int]]:
    sizes = {}
    for entry in entries:
        if entry.kind == CATALOG_KIND_FLAVOR:
            size = _number(entry.details["vcpus"]), _number(entry.details["ram_mib"])
            sizes[entry.name] = sizes[entry.id] = size
    return sizes


def _wanted(
    wishes: Iterable[Wish], places: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> Mapping[tuple[str, str], int]:
    wanted: Counter[tuple[str, str]] = Counter()
    for wish in wishes:
        cores, ram_mib = sizes.get(wish.flavor, (0, 0))
        each = {"vms": 1, "cores": cores, "ram_mib": ram_mib, "ports": wish.ports}
        # What names no place of the provider is refused: its spec tells so.
        for place in [place for place in places if wish.fits(place)][:1]:
            wanted.update({(kind, place): wish.vms * number for kind, number in each.items()})
    return wanted


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
