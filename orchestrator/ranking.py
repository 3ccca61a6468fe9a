"""Pure: who leaves first. Ties break by id, so two readers of one observation agree.

VMs that are a person's (stopped, moved, protected) or nobody can tell about are never on the list.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from .health import is_failing
from .model import Judged, VmStatus

# The gravest first. One that never served goes before one whose check may be wrong.
_GRAVITY = {
    VmStatus.AFTER_TIME_SHUTDOWN: 0,
    VmStatus.PENDING: 1,
    VmStatus.UNHEALTHY: 2,
    VmStatus.NEARBY_SHUTDOWN: 3,
    VmStatus.RUNNING: 4,
}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def leaving_order(candidates: Iterable[Judged], *, oldest_first: bool) -> list[Judged]:
    """Candidates that may leave at all, the first to leave first."""
    may_leave = [each for each in candidates if each.status in _GRAVITY and not each.vm.protected]
    return sorted(
        may_leave, key=lambda each: (*_gravity(each), *_age(each, oldest_first=oldest_first))
    )


def _gravity(judged: Judged) -> tuple[int, bool, bool]:
    # Among equals, one that never served goes before one that may still serve somebody, and one
    # that fails at present before one that passes.
    return (_GRAVITY[judged.status], judged.memory.was_healthy, not is_failing(judged))


def _age(judged: Judged, *, oldest_first: bool) -> tuple[float, str]:
    born = (judged.vm.created or judged.memory.first_seen or _LONG_AGO).timestamp()
    return (born if oldest_first else -born, judged.vm.vm_id)
