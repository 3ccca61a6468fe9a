"""The text of a timeline -> the timeline, or every line that is none, with the way out.

JSON lines: the head first, then records in the order of time. Strict: a field that is not known, a
VM that never appeared or a moment after the end is a slip that would make a back-test tell of
another story. The form is documented in docs/backtest.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, timedelta
from enum import Enum
from typing import Final, TypeVar

from ..model import Cloud, Method, PresetName, Process, Verdict, VmId, VmState
from .fields import Faulty, Fields, near
from .timeline import (
    ALL,
    BOOT_SECONDS,
    NEW,
    TAKEOVER_SECONDS,
    VERSION,
    Action,
    Appears,
    Asked,
    BootTime,
    ClockSet,
    Doer,
    Edit,
    Gone,
    Head,
    HolderLost,
    ListingChange,
    Others,
    Record,
    Refuses,
    StateChange,
    Timeline,
    VerdictChange,
)

_MOST_FAULTS: Final = 20
_LONGEST_LINE: Final = 64 * 1024
_NOT_JSON: Final = "is no JSON object of one line"

# What can become of VMs that are made from some moment on.
_FATES: Final = {VmState.RUNNING, VmState.PENDING, VmState.ERROR, VmState.TERMINATED}
# What names a VM in a request; other actions are about the preset.
_ABOUT_VMS: Final = {Action.TERMINATE, Action.PROTECT, Action.UNPROTECT}

K = TypeVar("K")


class Unreadable(Exception):
    """A text that is no timeline; `lines` name every fault by file, line and field."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class _Said(Enum):
    """What a probe says, or that each VM speaks for itself again."""

    HEALTHY = Verdict.HEALTHY
    UNHEALTHY = Verdict.UNHEALTHY
    UNKNOWN = Verdict.UNKNOWN
    EACH = None


def read(text: str, *, file: str) -> Timeline:
    """The timeline in this text; Unreadable, which tells the first faults, when there is none."""
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise Unreadable([f'{file}: is empty: begin with {{"timeline": {VERSION}, "preset": …}}'])
    number, first = lines[0]
    try:
        head = _head(Fields(_object(first)))
    except Faulty as e:
        raise Unreadable([f"{file}:{number}: {e}"]) from e
    reader = _Reader(head)
    faults = [f"{file}:{n}: {why}" for n, line in lines[1:] if (why := reader.fault_of(line))]
    if faults:
        raise Unreadable(faults[:_MOST_FAULTS])
    return Timeline(head, tuple(reader.records))


class _Reader:
    """Records one after the other: what came before says what may come."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._known: set[VmId] = set()
        self._present: set[VmId] = set()
        self.records: list[Record] = []

    def fault_of(self, line: str) -> str:
        """Take one line; what is wrong with it, or ""."""
        try:
            record = self._record(Fields(_object(line)))
            self._follow(record)
        except Faulty as e:
            return str(e)
        self.records.append(record)
        return ""

    def _record(self, fields: Fields) -> Record:
        at, what = fields.seconds("at"), fields.word("what")
        if what not in _RECORDS:
            raise Faulty("what", f"{what!r} is no record{near(what, _RECORDS)}")
        record = _RECORDS[what](fields, at)
        fields.nothing_left()
        return record

    def _follow(self, record: Record) -> None:
        """Refuse what cannot come after what there was."""
        if self.records and record.at < self.records[-1].at:
            raise Faulty("at", "lies before that of the line above: records stand in order of time")
        if record.at > self._head.length:
            length = f"{self._head.length:g}"
            raise Faulty("at", f"lies after the end: raise the head's length, which is {length}")
        if isinstance(record, Appears):
            self._appear(record)
        elif isinstance(record, StateChange | VerdictChange | Gone | Asked):
            self._must_be_there(record.vm_id)
        if isinstance(record, Gone):
            self._present.discard(record.vm_id)

    def _appear(self, record: Appears) -> None:
        if record.vm_id in self._known:
            raise Faulty("vm", f"{record.vm_id!r} appeared before: give this one another id")
        self._known.add(record.vm_id)
        self._present.add(record.vm_id)

    def _must_be_there(self, vm_id: VmId | None) -> None:
        if vm_id is None or vm_id in self._present | {ALL, NEW}:
            return
        if vm_id in self._known:
            raise Faulty("vm", f"{vm_id!r} is gone already: remove this line")
        hint = near(vm_id, self._known)
        raise Faulty("vm", f'no VM {vm_id!r} has appeared: add its "what": "vm" above{hint}')


def _object(line: str) -> Mapping[str, object]:
    if len(line) > _LONGEST_LINE:
        raise Faulty("", f"is longer than {_LONGEST_LINE} characters")
    try:
        value = json.loads(line, object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise Faulty("", _NOT_JSON) from e
    if not isinstance(value, dict):
        raise Faulty("", _NOT_JSON)
    return value


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise Faulty(name, "stands twice: remove one")
        found[name] = value
    return found


def _no_constant(word: str) -> object:
    raise Faulty("", f"{word} is no number")


def _head(fields: Fields) -> Head:
    if not fields.has("timeline"):
        raise Faulty(
            "timeline", f'is required: a timeline begins with {{"timeline": {VERSION}, …}}'
        )
    version = fields.whole("timeline")
    if version != VERSION:
        raise Faulty("timeline", f"version {version} is not known to this program: {VERSION} is")
    head = Head(
        preset=PresetName(fields.word("preset")),
        count=fields.whole("count"),
        spec_hash=fields.text("spec_hash", ""),
        start=fields.time("start").astimezone(UTC),
        length=fields.seconds("length"),
        boot_time=fields.seconds("boot_time", BOOT_SECONDS),
        cloud=_cloud(fields),
        note=fields.text("note", ""),
    )
    fields.nothing_left()
    return head


def _cloud(fields: Fields) -> Cloud:
    return Cloud(
        idempotent=fields.flag("idempotent", default=True),
        horizon=timedelta(seconds=fields.seconds("horizon", 0)),
        methods=fields.choices("methods", Method),
    )


def _vm(fields: Fields) -> VmId:
    """A VM of the timeline, or the word for VMs to come."""
    vm_id = VmId(fields.word("vm"))
    if vm_id == ALL:
        raise Faulty("vm", f"{ALL!r} stands for verdicts only: name each VM, or {NEW!r}")
    return vm_id


def _one_vm(fields: Fields) -> VmId:
    vm_id = VmId(fields.word("vm"))
    if vm_id in {ALL, NEW} or vm_id.startswith(f"{NEW}-"):
        raise Faulty("vm", f"{vm_id!r} is a word of the replay's own: name a VM of the timeline")
    return vm_id


def _appears(fields: Fields, at: float) -> Appears:
    if at > 0 and not fields.has("by"):
        why = "is required after the start: HOLDER made it (then it is left out), PERSON or CLOUD"
        raise Faulty("by", why)
    return Appears(
        at=at,
        vm_id=_one_vm(fields),
        by=fields.choice("by", Doer, Doer.CLOUD),
        state=fields.choice("state", VmState, VmState.RUNNING),
        verdict=fields.choice("verdict", Verdict, Verdict.HEALTHY),
        name=fields.text("name", ""),
        image=fields.text("image", ""),
        flavor=fields.text("flavor", ""),
        zone=fields.text("zone", ""),
        spec_hash=fields.text("spec_hash", ""),
        created=fields.moment("created", at),
        shutdown=_if_written(fields, "shutdown", fields.moment),
        protected=fields.flag("protected", default=False),
    )


def _state(fields: Fields, at: float) -> StateChange:
    vm_id, state = _vm(fields), fields.choice("state", VmState)
    if vm_id == NEW and state not in _FATES:
        words = ", ".join(sorted(each.name for each in _FATES))
        raise Faulty("state", f"VMs to come can be one of {words}")
    return StateChange(
        at=at,
        vm_id=vm_id,
        state=state,
        by=fields.choice("by", Doer, Doer.CLOUD),
        cloud_state=fields.text("cloud_state", ""),
        fault=fields.text("fault", ""),
    )


def _gone(fields: Fields, at: float) -> Gone:
    return Gone(at=at, vm_id=_one_vm(fields), by=fields.choice("by", Doer))


def _verdict(fields: Fields, at: float) -> VerdictChange:
    vm_id, said = VmId(fields.word("vm")), fields.choice("verdict", _Said)
    if said is _Said.EACH and vm_id != ALL:
        raise Faulty("verdict", f"EACH ends what was said of {ALL!r}, and of nobody else")
    return VerdictChange(at=at, vm_id=vm_id, verdict=said.value, message=fields.text("message", ""))


def _listing(fields: Fields, at: float) -> ListingChange:
    return ListingChange(at=at, complete=fields.flag("complete"), reason=fields.text("reason", ""))


def _refuses(fields: Fields, at: float) -> Refuses:
    reason = fields.word("reason")
    return Refuses(
        at=at,
        reason=reason,
        until=_end(fields, at),
        message=fields.text("message", reason.replace("_", " ").lower()),
        image=fields.text("image", ""),
        flavor=fields.text("flavor", ""),
        zone=fields.text("zone", ""),
    )


def _boot_time(fields: Fields, at: float) -> BootTime:
    return BootTime(at=at, seconds=fields.seconds("seconds"))


def _edit(fields: Fields, at: float) -> Edit:
    edit = Edit(
        at=at,
        count=_if_written(fields, "count", fields.whole),
        spec_hash=_if_written(fields, "spec_hash", fields.text),
        removed=_if_written(fields, "removed", fields.flag),
    )
    if edit == Edit(at=at):
        raise Faulty("", "changes nothing: write count, spec_hash or removed")
    return edit


def _asked(fields: Fields, at: float) -> Asked:
    action = fields.choice("action", Action)
    return Asked(
        at=at,
        action=action,
        vm_id=_one_vm(fields) if action in _ABOUT_VMS else None,
        count=fields.whole("count") if action is Action.APPROVE else None,
        processes=fields.choices("processes", Process) if action is Action.PAUSE else frozenset(),
        until=_end(fields, at) if action is Action.PAUSE else None,
        force=fields.flag("force", default=False) if action is Action.TERMINATE else False,
        actor=fields.text("actor", ""),
        reason=fields.text("reason", ""),
    )


def _holder_lost(fields: Fields, at: float) -> HolderLost:
    return HolderLost(at=at, until=_end(fields, at) or at + TAKEOVER_SECONDS)


def _clock(fields: Fields, at: float) -> ClockSet:
    return ClockSet(at=at, behind=fields.moment("behind"))


def _others(fields: Fields, at: float) -> Others:
    return Others(at=at, failing=fields.whole("failing"), probed=fields.whole("probed"))


def _end(fields: Fields, at: float) -> float | None:
    until = _if_written(fields, "until", fields.seconds)
    if until is not None and until <= at:
        raise Faulty("until", "must lie after at")
    return until


def _if_written(fields: Fields, name: str, take: Callable[[str], K]) -> K | None:
    return take(name) if fields.has(name) else None


_RECORDS: Final[Mapping[str, Callable[[Fields, float], Record]]] = {
    "vm": _appears,
    "state": _state,
    "gone": _gone,
    "verdict": _verdict,
    "listing": _listing,
    "refuses": _refuses,
    "boot_time": _boot_time,
    "preset": _edit,
    "operator": _asked,
    "holder_lost": _holder_lost,
    "clock": _clock,
    "others": _others,
}
