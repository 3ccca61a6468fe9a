"""What this replica knows of every preset at present: for the admin API, and for who decides next.

Values only, written by the cycle, read by the servicer. What other replicas hold is read from the
store instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from .budget import was_kept_for_health
from .config import Breaker
from .health import is_failing, is_watched
from .model import Deletion, Fleet, Judged, Pause, Plan, PresetName, Refusal, VmId, VmStatus
from .phases import Phase as Phase


@dataclass(frozen=True, slots=True)
class Condition:
    """A refusal, with since when it stands."""

    code: str
    message: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is known of one preset."""

    phase: Phase = Phase.WAITING
    conditions: tuple[Condition, ...] = ()
    judged: tuple[Judged, ...] = ()
    since: Mapping[VmId, tuple[VmStatus, datetime]] = field(default_factory=dict)
    plan: Plan | None = None
    pause: Pause | None = None
    provider: str = ""
    fencing_token: int | None = None
    holder: str = ""
    ended: datetime | None = None
    lasted: timedelta | None = None
    next_look: datetime | None = None
    probe_messages: Mapping[VmId, tuple[str, str]] = field(default_factory=dict)
    protections: frozenset[VmId] = frozenset()
    keep_failed_time: timedelta = timedelta(0)

    @property
    def statuses(self) -> Mapping[VmId, VmStatus]:
        """Every VM's status."""
        return {judged.vm.vm_id: judged.status for judged in self.judged}

    @property
    def fingerprint(self) -> object:
        """Differs when something differs that is worth storing."""
        vms = tuple(_seen_of(judged) for judged in self.judged)
        conditions = tuple((each.code, each.since) for each in self.conditions)
        return self.phase, vms, conditions, self.pause, self.protections, self.keep_failed_time


def _seen_of(judged: Judged) -> object:
    """What of a VM is worth storing when it differs."""
    vm, kept = judged.vm, judged.memory.kept_since
    leaving = judged.leaves_for, judged.is_outdated, kept
    return vm.vm_id, judged.status, vm.addresses, vm.protected, leaving


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """What the prober said of one preset."""

    at: datetime
    failing: int
    lost: int
    probed: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What a prober said of VMs: how many fail, how many were lost for it lately, of how many."""

    failing: int = 0
    lost: int = 0
    probed: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.failing + other.failing, self.lost + other.lost, self.probed + other.probed
        )


class Board:
    """Everything that is known, by preset."""

    def __init__(self) -> None:
        self._shown: dict[PresetName, Shown] = {}
        self._counts: dict[PresetName, _Count] = {}
        self._failing = self._lost = self._probed = 0

    def get(self, preset: PresetName) -> Shown | None:
        """What is known of a preset; None before its first cycle here."""
        return self._shown.get(preset)

    def show(self, preset: PresetName, shown: Shown) -> None:
        """Replace what is known."""
        self._shown[preset] = shown

    def forget(self, preset: PresetName) -> None:
        """Nothing is known any more."""
        self._shown.pop(preset, None)
        self._count(preset, None)

    def leave_to(self, preset: PresetName, holder: str, *, now: datetime) -> None:
        """Another replica looks after it, and counts what its prober says."""
        self.show(preset, Shown(phase=Phase.ELSEWHERE, holder=holder, ended=now))
        self._count(preset, None)

    def count_probed(
        self,
        preset: PresetName,
        judged: Collection[Judged],
        *,
        lost: Iterable[Deletion],
        window: timedelta,
        now: datetime,
    ) -> None:
        """Remember how many VMs of a preset the prober saw, and how many it condemns.

        Those that were destroyed or kept for their health within the window count as failing for
        as long as any other fails: a prober that errs must not be believed the more, the more it
        has cost already.
        """
        watched = [each for each in judged if is_watched(each)]
        failing = sum(1 for each in watched if is_failing(each))
        gone = sum(1 for each in lost if each.for_health and now - each.at < window)
        gone += sum(1 for each in judged if was_kept_for_health(each.memory, window, now=now))
        self._count(preset, _Count(at=now, failing=failing, lost=gone, probed=len(watched)))
        # Oldest first, since every count is put at the end: what is too old stands in front.
        while self._counts:
            oldest = next(iter(self._counts))
            if now - self._counts[oldest].at <= window:
                break
            self._count(oldest, None)

    def tally(self) -> Tally:
        """What the prober says of all presets that are looked after here."""
        return Tally(self._failing, self._lost, self._probed)

    def fleet(self, breaker: Breaker, others: Tally) -> Fleet:
        """What the prober says of all presets together, and how much of it is too much."""
        seen = self.tally() + others
        lost = seen.lost if seen.failing else 0
        return Fleet(
            failing=seen.failing + lost,
            probed=seen.probed + lost,
            breaker_count=breaker.count,
            breaker_percent=breaker.percent,
        )

    def _count(self, preset: PresetName, count: _Count | None) -> None:
        was = self._counts.pop(preset, None)
        for sign, each in ((-1, was), (1, count)):
            if each is not None:
                self._failing += sign * each.failing
                self._lost += sign * each.lost
                self._probed += sign * each.probed
        if count is not None:
            self._counts[preset] = count


def carried(
    before: Iterable[Condition], refusals: Iterable[Refusal], *, now: datetime
) -> tuple[Condition, ...]:
    """Conditions with the time since which they stand; one a code."""
    since = {each.code: each.since for each in before}
    latest = {each.code: each for each in refusals}
    return tuple(
        Condition(each.code, each.message, since.get(each.code, now)) for each in latest.values()
    )


def since_when(
    before: Mapping[VmId, tuple[VmStatus, datetime]], judged: Iterable[Judged], *, now: datetime
) -> Mapping[VmId, tuple[VmStatus, datetime]]:
    """Since when each VM has its status."""
    found: dict[VmId, tuple[VmStatus, datetime]] = {}
    for each in judged:
        was = before.get(each.vm.vm_id)
        kept = was is not None and was[0] is each.status
        found[each.vm.vm_id] = was if kept and was else (each.status, now)
    return found


def failed(shown: Shown | None, code: str, message: str, *, is_held: bool, now: datetime) -> Shown:
    """The same preset after a cycle that could not be completed; is its lock held by this replica?

    One that another replica looked after is that one's still, whatever keeps this one from asking.
    """
    shown = shown or Shown()
    if is_held and shown.phase is Phase.ELSEWHERE:
        shown = Shown()
    conditions = carried(shown.conditions, [Refusal(code, message)], now=now)
    phase = shown.phase if shown.phase is Phase.ELSEWHERE else Phase.BLOCKED
    return replace(shown, phase=phase, conditions=conditions, ended=now)
