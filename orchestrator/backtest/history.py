"""What a fleet told of itself -> its timeline, so that its own past can be replayed.

Reads the journal's events of one preset in the order in which they happened, and what stands now.
What the journal does not tell is guessed by the rules in docs/backtest.md, and each guess is a
warning: a back-test must not look surer than its timeline is.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from ..model import PresetName, Process, Reason, Verdict, VmId, VmState, VmStatus
from .lives import Life, boot_time, fates
from .timeline import (
    Action,
    Appears,
    Asked,
    Doer,
    Edit,
    Head,
    ListingChange,
    Record,
    Refuses,
    StateChange,
    Timeline,
    VerdictChange,
)

# VMs of which nobody tells when they were made are older than what is recorded.
_LONG_AGO: Final = -86400.0
_LONGEST_TEXT: Final = 500
_PAUSED: Final = re.compile(r"paused ([a-z_, ]+): (.*)", re.DOTALL)

# What a status says of the state and of the check, where an event tells nothing better.
_STATES: Final = {
    VmStatus.PENDING: VmState.PENDING,
    VmStatus.STOPPED: VmState.STOPPED,
    VmStatus.DELETING: VmState.DELETING,
    VmStatus.TERMINATED: VmState.TERMINATED,
    VmStatus.ERROR: VmState.ERROR,
    VmStatus.UNKNOWN: VmState.UNKNOWN,
}
_VERDICTS: Final = {
    VmStatus.RUNNING: Verdict.HEALTHY,
    VmStatus.UNHEALTHY: Verdict.UNHEALTHY,
    VmStatus.KEPT: Verdict.UNHEALTHY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event of the journal."""

    time: datetime
    kind: str
    reason: str = ""
    vm_id: str = ""
    message: str = ""
    actor: str = ""
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A VM that stands now."""

    vm_id: str
    created: datetime | None = None
    image: str = ""
    flavor: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What is declared and what stands at the end."""

    preset: str
    count: int
    spec_hash: str
    time: datetime
    vms: tuple[Present, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A timeline, and what of it is a guess."""

    timeline: Timeline
    warnings: tuple[str, ...]


def recorded(events: Sequence[Told], now: Now, *, since: datetime) -> Recorded:
    """The timeline from then until now; events from before it tell how it began."""
    start = max(since, events[0].time) if events else since
    scribe = _Scribe(start=start, now=now)
    if start > since:
        scribe.warn(f"the journal tells nothing from before {start}: the timeline begins there")
    for event in events:
        scribe.hear(event)
    return scribe.finished()


@dataclass(slots=True, kw_only=True)
class _Scribe:
    """Hears one event after the other and writes down what follows from it."""

    start: datetime
    now: Now
    records: list[Record] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lives: dict[str, Life] = field(default_factory=dict)
    over: list[Life] = field(default_factory=list)
    requests: set[str] = field(default_factory=set)
    first_count: int | None = None
    last_count: int | None = None
    first_hash: str = ""
    last_hash: str = ""
    refusal: Refuses | None = None

    def warn(self, words: str) -> None:
        """Say that something is a guess, once."""
        if words not in self.warnings:
            self.warnings.append(words)

    def hear(self, event: Told) -> None:
        """One more event."""
        at = self._at(event.time)
        match event.kind:
            case "VM_CREATING":
                self._creating(event, at)
            case "VM_CREATED":
                self._created(event, at)
            case "CREATE_FAILED":
                self._refused(event, at)
            case "VM_SEEN" | "VM_STATUS":
                self._state(event, at)
            case "CONDITION_SET" | "CONDITION_CLEARED" if event.reason == "LISTING_INCOMPLETE":
                is_whole = event.kind == "CONDITION_CLEARED"
                why = "" if is_whole else _short(event.message)
                self._write(ListingChange(at=at, complete=is_whole, reason=why))
            case "PRESET_EDITED":
                self._edited(event, at)
            case "PRESET_PAUSED" | "PRESET_RESUMED":
                self._write(_asked(event, at))
            case _ if event.vm_id in self.lives:
                self._befalls(event, self.lives[event.vm_id], at)

    def finished(self) -> Recorded:
        """The timeline, its records in order of time."""
        self._close_refusal(None)
        self._add_unheard()
        if self.last_hash not in {"", self.now.spec_hash}:
            self.warn("the spec was changed after the last create: when is not known, left out")
        every = [*self.over, *self.lives.values()]
        lives = sorted(every, key=lambda life: life.begins.vm_id)
        records = [*self.records, *fates(lives), *(each for life in lives for each in life.all())]
        length = max(0.0, self._at(self.now.time))
        inside = sorted((each for each in records if each.at <= length), key=lambda each: each.at)
        return Recorded(Timeline(self._head(lives, length), tuple(inside)), tuple(self.warnings))

    def _head(self, lives: Sequence[Life], length: float) -> Head:
        if self.last_count not in {None, self.now.count}:
            self.warn(
                f"the last count that is told is {self.last_count}, and {self.now.count} is "
                "declared now: since when is not known, left out"
            )
        return Head(
            preset=PresetName(self.now.preset),
            count=self.now.count if self.first_count is None else self.first_count,
            spec_hash=self.first_hash or self.now.spec_hash,
            start=self.start,
            length=length,
            boot_time=boot_time(lives),
        )

    def _at(self, time: datetime) -> float:
        return round((time - self.start).total_seconds(), 3)

    def _write(self, record: Record) -> None:
        """Keep what holds after the start; of what was before only the last word does."""
        if record.at <= 0:
            self.records = [each for each in self.records if type(each) is not type(record)]
            record = replace(record, at=0.0)
        self.records.append(record)

    def _creating(self, event: Told, at: float) -> None:
        self.requests.add(event.evidence.get("request_id", ""))
        self._respecified(event.evidence.get("spec_hash", ""), at)

    def _edited(self, event: Told, at: float) -> None:
        """The preset is declared otherwise. A count that is told was accepted: it is approved."""
        told = event.evidence
        if former := told.get("former_spec_hash"):
            self.first_hash = self.first_hash or former
            self.last_hash = self.last_hash or former
            self._respecified(told.get("spec_hash", ""), at)
        if "former_count" in told:
            with contextlib.suppress(ValueError, KeyError):
                self._recounted(int(told["former_count"]), int(told["count"]), at)

    def _respecified(self, spec_hash: str, at: float) -> None:
        if spec_hash in {"", self.last_hash}:
            return
        if self.last_hash and at > 0:
            self.records.append(Edit(at=at, spec_hash=spec_hash))
        else:
            self.first_hash = spec_hash
        self.last_hash = spec_hash

    def _recounted(self, former: int, count: int, at: float) -> None:
        self.last_count = count
        if at <= 0:
            self.first_count = count
            return
        self.first_count = former if self.first_count is None else self.first_count
        self.records += [Asked(at=at, action=Action.APPROVE, count=count), Edit(at=at, count=count)]

    def _created(self, event: Told, at: float) -> None:
        self._close_refusal(at)
        if event.vm_id and event.vm_id not in self.lives:
            self._begin(event, at, state=VmState.PENDING, by=Doer.HOLDER)

    def _refused(self, event: Told, at: float) -> None:
        reason = event.reason or "UNKNOWN"
        if self.refusal is not None and self.refusal.reason == reason:
            return
        self._close_refusal(at)
        self.refusal = Refuses(at=max(at, 0.0), reason=reason, message=_short(event.message))

    def _close_refusal(self, at: float | None) -> None:
        """The cloud takes creates again, or refuses for another reason; None: it still does."""
        last, self.refusal = self.refusal, None
        if last is not None and (at is None or at > last.at):
            self.records.append(replace(last, until=at))

    def _state(self, event: Told, at: float) -> None:
        state, life = self._told_state(event), self.lives.get(event.vm_id)
        if life is None:
            made = event.evidence.get("request_id", "") in self.requests - {""}
            self._begin(event, at, state=state, by=Doer.HOLDER if made else Doer.CLOUD)
            return
        vm_id, evidence = life.begins.vm_id, event.evidence
        life.begins = _described(life.begins, evidence)
        change = StateChange(
            at=at,
            vm_id=vm_id,
            state=state,
            cloud_state=_short(evidence.get("cloud_state", "")),
            fault=_short(evidence.get("fault", "")),
        )
        life.turn(change)
        verdict = None if "state" in evidence else _verdict_of(event)
        if verdict is not None:
            life.judge(VerdictChange(at=at, vm_id=vm_id, verdict=verdict))

    def _told_state(self, event: Told) -> VmState:
        if (word := event.evidence.get("state", "")) in VmState.__members__:
            return VmState[word]
        self.warn("events of an older version tell no state of the cloud: taken from the status")
        return _STATES.get(_status(event), VmState.RUNNING)

    def _begin(self, event: Told, at: float, *, state: VmState, by: Doer) -> None:
        """A VM is told of for the first time. The holder made it, or it stood before."""
        stood = by is not Doer.HOLDER or at <= 0
        if stood and at > 0:
            self.warn("VMs are seen whose making is not in the journal: they stand at the start")
        begins = Appears(
            at=0.0 if stood else at,
            vm_id=self._own_id(event.vm_id),
            by=Doer.CLOUD if stood else by,
            state=state,
            verdict=(_verdict_of(event) or Verdict.UNKNOWN) if stood else Verdict.UNKNOWN,
            created=self._born(event, at if at < 0 or not stood else _LONG_AGO),
        )
        self.lives[event.vm_id] = Life(_described(begins, event.evidence))

    def _own_id(self, vm_id: str) -> VmId:
        """A timeline knows each VM by an id of its own; clouds may give one twice."""
        before = sum(life.begins.vm_id.partition("~")[0] == vm_id for life in self.over)
        return VmId(f"{vm_id}~{before + 1}" if before else vm_id)

    def _born(self, event: Told, otherwise: float) -> float:
        """When the cloud made a VM, as an event tells it or as it stands at the end."""
        with contextlib.suppress(ValueError, TypeError):
            return self._at(datetime.fromisoformat(event.evidence.get("created", "")))
        ages = (vm.created for vm in self.now.vms if vm.vm_id == event.vm_id)
        created = next(ages, None)
        return otherwise if created is None else self._at(created)

    def _befalls(self, event: Told, life: Life, at: float) -> None:
        vm_id = life.begins.vm_id
        match event.kind:
            case "VM_PROBE" if event.reason in Verdict.__members__:
                verdict, words = Verdict[event.reason], _short(event.message)
                life.judge(VerdictChange(at=at, vm_id=vm_id, verdict=verdict, message=words))
            case "VM_TERMINATING":
                life.is_sent_away = True
                if event.reason == Reason.OPERATOR.name:
                    life.ask(Action.TERMINATE, at=max(at, 0.0))
            case "VM_PROTECTED" | "VM_UNPROTECTED":
                self._protected(life, at, is_on=event.kind == "VM_PROTECTED")
            case "VM_KEPT":
                life.is_sent_away = True
            case "VM_REBOOTED" | "VM_REBUILT":
                self.warn("VMs were repaired by the holder: they recover in a replay all the same")
            case "TERMINATE_FAILED":
                life.is_sent_away = False
            case "VM_GONE":
                life.end(at)
                self.over.append(self.lives.pop(event.vm_id))

    def _protected(self, life: Life, at: float, *, is_on: bool) -> None:
        if at <= 0:
            life.begins = replace(life.begins, protected=is_on)
            return
        life.ask(Action.PROTECT if is_on else Action.UNPROTECT, at=at)

    def _add_unheard(self) -> None:
        """VMs that stand at the end, and of which no event tells."""
        for vm in self.now.vms:
            if vm.vm_id in self.lives:
                continue
            self.warn("VMs stand of which no event tells: taken to have served all the time")
            created = _LONG_AGO if vm.created is None else min(self._at(vm.created), -1.0)
            begins = Appears(at=0.0, vm_id=VmId(vm.vm_id), created=created)
            facts = {"image": vm.image, "flavor": vm.flavor, "zone": vm.zone}
            self.lives[vm.vm_id] = Life(_described(begins, facts))


def _described(begins: Appears, evidence: Mapping[str, str]) -> Appears:
    """The same VM with what an event tells of its making."""
    return replace(
        begins,
        image=evidence.get("image", begins.image),
        flavor=evidence.get("flavor", begins.flavor),
        zone=evidence.get("zone", begins.zone),
        spec_hash=evidence.get("spec_hash", begins.spec_hash),
    )


def _status(event: Told) -> VmStatus:
    known = event.reason in VmStatus.__members__
    return VmStatus[event.reason] if known else VmStatus.RUNNING


def _verdict_of(event: Told) -> Verdict | None:
    return _VERDICTS.get(_status(event))


def _asked(event: Told, at: float) -> Asked:
    """A pause, of the processes that its sentence names, or the end of one."""
    if event.kind == "PRESET_RESUMED":
        return Asked(at=at, action=Action.RESUME, actor=event.actor)
    found = _PAUSED.match(event.message)
    words = [] if found is None else found[1].upper().split(", ")
    return Asked(
        at=at,
        action=Action.PAUSE,
        processes=frozenset(Process[word] for word in words if word in Process.__members__),
        actor=event.actor,
        reason=_short(found[2]) if found else "",
    )


def _short(text: str) -> str:
    return text[:_LONGEST_TEXT]
