"""How much of the work a replica should take, by how late it is with it.  Pure.

A replica that looks at its presets too late hands some of them over, a part at a time; one that is
in time again takes them back slowly. Only shares compared with each other matter: when all replicas
are late, nothing moves. Each preset that moves starts its timers anew, hence the patience.
"""

from __future__ import annotations

from datetime import timedelta

from .homes import FULL

STEP = timedelta(seconds=30)
"""How often a share may change."""

LATE = timedelta(seconds=2)
IN_TIME = timedelta(milliseconds=500)
# Less would hand over what little still works; a replica that cannot work at all takes nothing.
LEAST = 10


def share(former: int, lateness: timedelta) -> int:
    """The share from now on, by how late looks began on average since the former one."""
    if lateness > LATE:
        return max(LEAST, former * 7 // 10)
    if lateness < IN_TIME:
        return min(FULL, former + 5)
    return former
