"""What the presets of a seed ask for: each draws some features and leaves out others.

Called when a world is populated; what people change later is `faults`.
"""

from __future__ import annotations

import random
from typing import Any

FLAVORS = ("small", "medium")
ZONES = ("az-1", "az-2", "az-3")
# Short enough to be over within an hour of chaos.
REMOVAL_GRACE = 300.0
KEPT_FOR = 180.0
# Clocks are wrong by an hour: to one that is ahead, VMs of a quarter of an hour are too old.
MAX_LIFETIME = 4500.0
SHUTDOWN_NOTICE = 300.0

_FEATURES: dict[str, dict[str, Any]] = {
    "deleted on removal": {"on_remove": "delete", "removal_grace": REMOVAL_GRACE},
    "failed VMs are kept": {"keep_failed": 1, "keep_failed_time": KEPT_FOR},
    "rebooted first": {"reboots": 1},
    "rebuilt first": {"rebuilds": 1},
    "a short life": {"max_lifetime": MAX_LIFETIME},
    "stopped VMs are replaced": {"on_stopped": "replace"},
}
_PLACES = {"flavor": list(FLAVORS), "network": {"availability_zones": list(ZONES)}}


def declared(seed: int, number: int) -> dict[str, Any]:
    """The keys of one preset beside its count, and where it may be placed."""
    chance = random.Random(f"policy {seed} {number}")
    policy: dict[str, Any] = {
        "max_unavailable": chance.randint(0, 1),
        "replace": chance.choice(("rolling", "rolling", "on_failure", "never")),
        "shutdown_notice": SHUTDOWN_NOTICE,
        "longest_backoff": 120,
    }
    for keys in _FEATURES.values():
        if chance.random() < 0.3:
            policy |= keys
    return {"policy": policy, **(_PLACES if chance.random() < 0.4 else {})}
