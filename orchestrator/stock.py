"""Pure: the group as it stands. Who counts, who shall leave, what is on the way, what is paused.

Read by `make` and `remove`; decides nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import intents, leaving, rollout
from .model import Intent, Judged, Memory, Observation, Process, Reason, Refusal, VmStatus

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
# Reasons to leave for which nothing is wrong with a VM: its successor must have proved itself.
_TURNOVER = {Reason.OUTDATED, Reason.MAX_LIFETIME}


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
        unproved = rollout.unproved(self.sound) if self.is_turning_over else ()
        fresh = {each.vm.vm_id for each in unproved} | {
            each.vm.vm_id for each in self.sound if each.status is VmStatus.PENDING
        }
        return len(self.open_intents) + len(fresh)

    @property
    def is_turning_over(self) -> bool:
        """Whether VMs leave with which nothing is wrong."""
        return any(each.leaves_for in _TURNOVER for each in self.leaving)

    @property
    def needed(self) -> int:
        """VMs to be made, those on their way included: the missing, and room to replace."""
        surge = min(len(replaceable(self)), self.seen.spec.policy.max_surge)
        return self.count + surge - len(self.alive)

    @property
    def is_calm(self) -> bool:
        """Nothing is on its way in or out, and nothing is missing that may be made."""
        going = any(each.status is VmStatus.DELETING for each in self.judged)
        missing = self.needed > 0 and not self.is_paused(Process.CREATE)
        return not (self.warming or replaceable(self) or going or missing or self.is_repairing)

    @property
    def is_repairing(self) -> bool:
        """Whether a VM is being repaired, or was so a moment ago and has not recovered yet."""
        return any(is_under_repair(each, self.seen) for each in self.alive)

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
    judged = tuple(_told(each, leaving.why_leave(each, memory, seen), seen) for each in judged)
    stock = Stock(
        seen=seen,
        count=count,
        memory=memory,
        judged=judged,
        alive=(),
        leaving=(),
        sound=(),
        open_intents=intents.still_open(seen),
    )
    stock = _sorted(stock, judged)
    turned_over = rollout.batch(group(stock))
    if turned_over:
        stock = _sorted(
            stock, tuple(_told(each, turned_over.get(each.vm.vm_id), seen) for each in judged)
        )
    too_many = len(stock.open_intents) - max(0, stock.needed)
    wanted = intents.without_unneeded(stock.open_intents, too_many, seen)
    return replace(stock, open_intents=wanted)


def group(stock: Stock) -> rollout.Group:
    """The group, as the turning over of its VMs sees it."""
    return rollout.Group(
        alive=stock.alive,
        leaving=sum(1 for each in stock.leaving if each.leaves_for not in _TURNOVER),
        coming=len(stock.open_intents),
        count=stock.count,
        memory=stock.memory,
        seen=stock.seen,
        paused=frozenset(process for process in Process if stock.is_paused(process)),
    )


def is_under_repair(judged: Judged, seen: Observation) -> bool:
    """Whether it was repaired a moment ago and has not recovered yet."""
    at, grace = judged.memory.repaired_at, seen.spec.policy.startup_grace
    return at is not None and seen.now - at < grace and not judged.is_ready


def has_run_out(judged: Judged, seen: Observation) -> bool:
    """Whether a stopped VM was stopped by its announced shutdown, and not by a person."""
    end = judged.vm.shutdown_at
    return judged.status is VmStatus.STOPPED and end is not None and end <= seen.now


def _counts(judged: Judged, seen: Observation) -> bool:
    return judged.status in _ALIVE and not has_run_out(judged, seen)


def _told(judged: Judged, reason: Reason | None, seen: Observation) -> Judged:
    """The same VM with the reason why it leaves, if it is there to leave at all."""
    if reason is None or not _counts(judged, seen):
        return judged
    return replace(judged, leaves_for=reason)


def _sorted(stock: Stock, judged: tuple[Judged, ...]) -> Stock:
    """The stock of these VMs: who counts, who leaves, who stays."""
    alive = tuple(each for each in judged if _counts(each, stock.seen))
    return replace(
        stock,
        judged=judged,
        alive=alive,
        leaving=tuple(each for each in alive if each.leaves_for),
        sound=tuple(each for each in alive if not each.leaves_for),
    )


def replaceable(stock: Stock) -> list[Judged]:
    """Leaving VMs whose replacement nobody paused."""
    return [each for each in stock.leaving if not stock.is_paused(process_of(each))]


def process_of(judged: Judged) -> Process:
    """The part of the work that replaces this leaving VM."""
    return leaving.process_for(judged.leaves_for)
