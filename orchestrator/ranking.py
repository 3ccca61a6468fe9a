"""Pure: who leaves first. Ties break by id, so two readers of one observation agree.

VMs that are a person's (stopped, moved, protected) or nobody can tell about are never on the list.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from .health import is_failing
from .model import Judged, VmMemory, VmStatus

# The gravest first. One that never served goes before one whose check may be wrong.
_GRAVITY = {
    VmStatus.STOPPED: 0,
    VmStatus.AFTER_TIME_SHUTDOWN: 0,
    VmStatus.PENDING: 1,
    VmStatus.UNHEALTHY: 2,
    VmStatus.NEARBY_SHUTDOWN: 3,
    VmStatus.RUNNING: 4,
}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def leaving_order(
    candidates: Iterable[Judged], *, oldest_first: bool, is_outdated_first: bool = False
) -> list[Judged]:
    """Candidates that may leave at all, the first to leave first."""

    def rank(judged: Judged) -> tuple[object, ...]:
        outdated = is_outdated_first and judged.is_outdated
        return (*_gravity(judged), not outdated, *_age(judged, oldest_first=oldest_first))

    return sorted((each for each in candidates if _may_leave(each)), key=rank)


def untried_first(group: Iterable[Judged]) -> list[Judged]:
    """The same order, with those behind whose termination failed, the latest failure last."""
    return sorted(group, key=lambda each: trials(each.memory))


def trials(memory: VmMemory) -> tuple[int, datetime]:
    """A key to sort by. What may be going already is tried before anybody else is destroyed."""
    if memory.terminate_failed_at is None:
        return (1, _LONG_AGO)
    return (0 if memory.is_doubtful else 2, memory.terminate_failed_at)


def spread(
    order: Sequence[Judged], alive: Iterable[Judged], *, is_outdated_first: bool = False
) -> list[Judged]:
    """The same order, those of the fullest zone first among VMs that are equally grave."""

    def kind(judged: Judged) -> tuple[object, ...]:
        return (*_gravity(judged), is_outdated_first and judged.is_outdated)

    load = Counter(each.vm.zone for each in alive)
    return [each for _, equals in groupby(order, kind) for each in _fullest_first(equals, load)]


def _fullest_first(equals: Iterable[Judged], load: Counter[str]) -> Iterator[Judged]:
    zones = dict[str, deque[tuple[int, Judged]]]()
    for place, each in enumerate(equals):
        zones.setdefault(each.vm.zone, deque()).append((-place, each))
    while zones:
        zone = max(zones, key=lambda zone: (load[zone], zones[zone][0][0]))
        load[zone] -= 1
        yield zones[zone].popleft()[1]
        if not zones[zone]:
            del zones[zone]


def _may_leave(judged: Judged) -> bool:
    """What a person stopped stays, unless the preset itself wants it replaced."""
    if judged.status is VmStatus.STOPPED and judged.leaves_for is None:
        return False
    return judged.status in _GRAVITY and not judged.vm.protected


def _gravity(judged: Judged) -> tuple[int, bool, bool, bool]:
    # Among equals, one that never served goes before one that may still serve somebody, one that
    # fails at present before one that passes, and one that has not proved itself before others.
    memory = judged.memory
    return (
        _GRAVITY[judged.status],
        memory.was_healthy,
        not is_failing(judged),
        memory.was_proved,
    )


def _age(judged: Judged, *, oldest_first: bool) -> tuple[float, str]:
    born = judged.born.timestamp()
    return (born if oldest_first else -born, judged.vm.vm_id)
