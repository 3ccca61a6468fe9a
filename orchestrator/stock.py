"""Pure: the group as it stands. Who counts, who shall leave, what is on the way, what is paused.

Read by `make` and `remove`; decides nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import health, intents
from .model import Intent, Judged, Memory, Observation, Process, Refusal, VmStatus

# Statuses of VMs that run, will run, or may run for all we know: they count.
_ALIVE = {
    VmStatus.PENDING,
    VmStatus.RUNNING,
    VmStatus.UNHEALTHY,
    VmStatus.NEARBY_SHUTDOWN,
    VmStatus.AFTER_TIME_SHUTDOWN,
    VmStatus.STOPPED,
    VmStatus.UNKNOWN,
}
_EXPIRING = {VmStatus.NEARBY_SHUTDOWN, VmStatus.AFTER_TIME_SHUTDOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """The group as it stands: who counts, who shall leave, who is on the way."""

    seen: Observation
    count: int
    memory: Memory
    judged: tuple[Judged, ...]
    alive: tuple[Judged, ...]
    leaving: tuple[Judged, ...]
    sound: tuple[Judged, ...]
    open_intents: tuple[Intent, ...]

    @property
    def warming(self) -> int:
        """Sound VMs that do not serve yet, and VMs that may be on their way."""
        return len(self.open_intents) + sum(
            1 for each in self.sound if each.status is VmStatus.PENDING
        )

    @property
    def needed(self) -> int:
        """VMs to be made, those on their way included: the missing, and room to replace."""
        surge = min(len(replaceable(self)), self.seen.spec.policy.max_surge)
        return self.count + surge - len(self.alive)

    @property
    def is_calm(self) -> bool:
        """Nothing is on its way in or out, and nothing is missing that may be made."""
        leaving = any(each.status is VmStatus.DELETING for each in self.judged)
        missing = self.needed > 0 and not self.is_paused(Process.CREATE)
        return not (self.warming or replaceable(self) or leaving or missing)

    def is_paused(self, process: Process) -> bool:
        """Whether a person stopped this part of the work."""
        pause = self.seen.wishes.pause
        if pause is None or pause.is_over(self.seen.now):
            return False
        return not pause.processes or process in pause.processes

    def paused(self, process: Process, what: str) -> Refusal:
        """The words for it."""
        pause = self.seen.wishes.pause
        by = f"{pause.actor or 'somebody'}: {pause.reason or 'no reason given'}" if pause else ""
        return Refusal("PAUSED", f"{what}, but {process.name.lower()} is paused by {by}")


def count_alive(judged: Iterable[Judged]) -> int:
    """How many VMs run, will run, or may run for all we know."""
    return sum(1 for each in judged if each.status in _ALIVE)


def take_stock(
    judged: tuple[Judged, ...], memory: Memory, seen: Observation, *, count: int
) -> Stock:
    """Sort the judged VMs: who counts, and of them, who shall leave and who is sound."""
    alive = tuple(each for each in judged if _counts(each, seen))
    leaving = tuple(each for each in alive if _shall_leave(each, memory, seen))
    sound = tuple(each for each in alive if each not in leaving)
    stock = Stock(
        seen=seen,
        count=count,
        memory=memory,
        judged=judged,
        alive=alive,
        leaving=leaving,
        sound=sound,
        open_intents=intents.still_open(seen),
    )
    too_many = len(stock.open_intents) - max(0, stock.needed)
    wanted = intents.without_unneeded(stock.open_intents, too_many, seen)
    return replace(stock, open_intents=wanted)


def has_run_out(judged: Judged, seen: Observation) -> bool:
    """Whether a stopped VM was stopped by its announced shutdown, and not by a person."""
    end = judged.vm.shutdown_at
    return judged.status is VmStatus.STOPPED and end is not None and end <= seen.now


def _counts(judged: Judged, seen: Observation) -> bool:
    return judged.status in _ALIVE and not has_run_out(judged, seen)


def _shall_leave(judged: Judged, memory: Memory, seen: Observation) -> bool:
    """Whether a living VM is to be replaced."""
    if judged.vm.protected:
        return False
    if judged.status is VmStatus.UNHEALTHY:
        check = seen.spec.check
        return memory.breaker_since is None and check is not None and not check.observe_only
    return judged.status in _EXPIRING or health.is_overdue(judged, seen.spec.policy, seen.now)


def replaceable(stock: Stock) -> list[Judged]:
    """Leaving VMs whose replacement nobody paused."""
    return [each for each in stock.leaving if not stock.is_paused(process_of(each))]


def process_of(judged: Judged) -> Process:
    """The part of the work that replaces this leaving VM."""
    return Process.HEALTH if judged.status is VmStatus.UNHEALTHY else Process.REPLACE
