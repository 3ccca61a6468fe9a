"""How much room a tiny model of a cloud has: quotas, capacity by zone, images.

Used by `world` for each create; every refusal bears the reason that an iaas_service would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.model import Placement


@dataclass
class Room:
    """What the cloud refuses to make."""

    quota: int = 1000
    flavor_quotas: dict[str, int] = field(default_factory=dict)
    # Flavors and zones without capacity; "" is any.
    full: set[tuple[str, str]] = field(default_factory=set)
    missing_images: set[str] = field(default_factory=set)

    def why_not(self, wanted: Placement, taken: Sequence[Placement]) -> tuple[str, str]:
        """The reason and the words of a refusal; ("", "") when there is room."""
        if wanted.image in self.missing_images:
            return "NOT_FOUND", f"image {wanted.image} could not be found"
        if len(taken) >= self.quota:
            return "QUOTA_EXCEEDED", f"quota of {self.quota} VMs is used up"
        used = sum(1 for each in taken if each.flavor == wanted.flavor)
        if used >= self.flavor_quotas.get(wanted.flavor, 1000):
            return "QUOTA_EXCEEDED", f"quota of {used} VMs of flavor {wanted.flavor} is used up"
        if self._is_full(wanted):
            where = f" in zone {wanted.zone}" if wanted.zone else ""
            return "NO_CAPACITY", f"no host has room for flavor {wanted.flavor or 'any'}{where}"
        return "", ""

    def _is_full(self, wanted: Placement) -> bool:
        return any(
            flavor in {"", wanted.flavor} and zone in {"", wanted.zone}
            for flavor, zone in self.full
        )
