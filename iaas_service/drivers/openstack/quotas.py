"""Pure: the limits of a project in the words of the services, and whether a VM fits within them.

`catalog` shows them, `room` goes by them.  -1 is no limit; a limit that a service does not tell is
left out, and stands in nobody's way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ...domain import Quota
from .choose import Thing

Json = Mapping[str, Any]
Need = Mapping[str, int]
"""How much of each resource, by the name of its quota."""

METADATA: Final = "metadata"

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


def nova_quotas(absolute: Json) -> list[Quota]:
    """Those of Nova."""
    return _of_limits(absolute, _NOVA)


def metadata_quota(absolute: Json) -> list[Quota]:
    """How many metadata one VM may have, whatever others have."""
    most = absolute.get("maxServerMeta")
    return [] if most is None else [quota(METADATA, most, 0)]


def cinder_quotas(absolute: Json) -> list[Quota]:
    """Those of Cinder."""
    return _of_limits(absolute, _CINDER)


def quota(resource: str, limit: int, used: int) -> Quota:
    """One limit, and what is used of it."""
    return Quota(resource=resource, limit=None if limit < 0 else limit, used=max(used, 0))


def need(flavor: Thing) -> Need:
    """What one VM of a flavor takes."""
    return {"vms": 1, "cores": flavor.facts["vcpus"], "ram_mib": flavor.facts["ram_mib"]}


def shortage(quotas: Iterable[Quota], taken: Iterable[Need], wanted: Need) -> Quota | None:
    """The first quota that leaves no room beside what was taken since it was read, with what is
    used of it by now; None when all do.
    """
    takings = list(taken)
    for each in quotas:
        used = each.used + sum(taking.get(each.resource, 0) for taking in takings)
        more = wanted.get(each.resource, 0)
        if more and each.limit is not None and used + more > each.limit:
            return Quota(resource=each.resource, limit=each.limit, used=used)
    return None


def _of_limits(absolute: Json, names: Iterable[tuple[str, str, str]]) -> list[Quota]:
    return [
        quota(resource, absolute[most], absolute[used])
        for resource, most, used in names
        if most in absolute and used in absolute
    ]
