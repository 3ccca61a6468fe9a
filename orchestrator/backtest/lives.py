"""The recorded life of one VM, and what the lives of VMs that the holder made say of new ones.

`history` writes lives from the journal; whatever happened before the start is how a VM begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from statistics import median

from ..model import Verdict, VmState
from .timeline import (
    BOOT_SECONDS,
    NEW,
    Action,
    Appears,
    Asked,
    Doer,
    Gone,
    Record,
    StateChange,
    VerdictChange,
)

_ENDED = {VmState.ERROR, VmState.TERMINATED}
_Fate = tuple[VmState, Verdict]
_GOOD: _Fate = (VmState.RUNNING, Verdict.HEALTHY)


@dataclass(slots=True)
class Life:
    """One VM: how it begins, and what happens to it from the start on."""

    begins: Appears
    records: list[StateChange | VerdictChange | Gone | Asked] = field(default_factory=list)
    # Whether the recorded holder sent it away: what follows is the holder's doing.
    is_sent_away: bool = False

    def turn(self, change: StateChange) -> None:
        """The cloud says something else of it."""
        if change.state is self._state():
            return
        if change.at <= 0:
            self.begins = replace(self.begins, state=change.state)
        else:
            doer = Doer.HOLDER if self.is_sent_away else change.by
            self.records.append(replace(change, by=doer))

    def judge(self, change: VerdictChange) -> None:
        """A probe says something else of it; of one that was sent away it says nothing."""
        if self.is_sent_away or change.verdict is self._verdict():
            return
        if change.at <= 0 and change.verdict is not None:
            self.begins = replace(self.begins, verdict=change.verdict)
        else:
            self.records.append(change)

    def ask(self, action: Action, *, at: float) -> None:
        """A person asks for something that is about it."""
        vm_id = self.begins.vm_id
        self.records.append(Asked(at=at, action=action, vm_id=vm_id, reason="as recorded"))

    def end(self, at: float) -> None:
        """It is gone."""
        doer = Doer.HOLDER if self.is_sent_away else Doer.CLOUD
        self.records.append(Gone(at=at, vm_id=self.begins.vm_id, by=doer))

    def all(self) -> Iterator[Record]:
        """Its records, the first one first; none of one that was gone before the start."""
        if any(isinstance(each, Gone) and each.at <= 0 for each in self.records):
            return
        yield self.begins
        yield from self.records

    def _state(self) -> VmState:
        told = [each.state for each in self.records if isinstance(each, StateChange)]
        return told[-1] if told else self.begins.state

    def _verdict(self) -> Verdict | None:
        told = [each.verdict for each in self.records if isinstance(each, VerdictChange)]
        return told[-1] if told else self.begins.verdict


def boot_time(lives: Iterable[Life]) -> float:
    """How long VMs of the holder's making took to run, typically."""
    took = [taken for life in _made(lives) if (taken := _boot_of(life)) is not None]
    return round(median(took), 3) if took else BOOT_SECONDS


def fates(lives: Iterable[Life]) -> Iterator[Record]:
    """When new VMs began to fail, and when they did not fail any more."""
    before = _GOOD
    for life in _made(lives):
        fate = _fate_of(life)
        at, (state, verdict) = life.begins.at, fate or before
        if state is not before[0]:
            yield StateChange(at=at, vm_id=NEW, state=state)
        if verdict is not before[1]:
            yield VerdictChange(at=at, vm_id=NEW, verdict=verdict)
        before = (state, verdict)


def _made(lives: Iterable[Life]) -> list[Life]:
    made = [life for life in lives if life.begins.by is Doer.HOLDER]
    return sorted(made, key=lambda life: (life.begins.at, life.begins.vm_id))


def _boot_of(life: Life) -> float | None:
    for each in life.records:
        if isinstance(each, StateChange) and each.state is VmState.RUNNING:
            return each.at - life.begins.at
    return None


def _fate_of(life: Life) -> _Fate | None:
    """What became of a new VM: it served, it ended, it failed its check; None when nobody knows."""
    for each in life.records:
        if isinstance(each, VerdictChange) and each.verdict is Verdict.HEALTHY:
            return _GOOD
        if isinstance(each, VerdictChange) and each.verdict is Verdict.UNHEALTHY:
            return (VmState.RUNNING, Verdict.UNHEALTHY)
        if isinstance(each, StateChange) and each.state in _ENDED and each.by is Doer.CLOUD:
            return (each.state, Verdict.HEALTHY)
    return None
