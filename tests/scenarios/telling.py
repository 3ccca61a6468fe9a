"""What followed, told in the words of operators: one paragraph a cycle, or one for a long time.

What is refused in the same words as in the cycle before is only named again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from orchestrator.model import (
    Create,
    Judged,
    Keep,
    Plan,
    Refusal,
    Repair,
    Spec,
    Terminate,
    VmStatus,
)

_COUNTDOWN = re.compile(r"(waits|in) \d+ s")
_LIVING = {
    VmStatus.PENDING,
    VmStatus.RUNNING,
    VmStatus.UNHEALTHY,
    VmStatus.NEARBY_SHUTDOWN,
    VmStatus.AFTER_TIME_SHUTDOWN,
    VmStatus.STOPPED,
    VmStatus.UNKNOWN,
}
_FEW = 6


@dataclass
class Teller:
    """Tells one preset's life, and leaves out a cycle like the one before."""

    name: str = ""
    _before: str = ""
    _refused: frozenset[tuple[str, str]] = frozenset()

    def tell(self, at: timedelta, plan: Plan, spec: Spec) -> Iterator[str]:
        """The paragraph of a cycle; nothing when nothing is new."""
        lines = [_state(plan, spec), *_steps(plan), *self._refusals(plan.refusals)]
        now = _COUNTDOWN.sub(
            r"\1 a while", "\n".join([*lines[:1], *_steps(plan), *_all(plan.refusals)])
        )
        if now != self._before:
            yield from stamped(_clock(at), [self.name + lines[0], *lines[1:]])
            self._refused = frozenset(_key(each) for each in plan.refusals)
        self._before = now

    def _refusals(self, refusals: Iterable[Refusal]) -> Iterator[str]:
        known = [each for each in refusals if _key(each) in self._refused]
        for each in refusals:
            if each not in known:
                yield f"not more: {each.code}: {each.message}"
        if known:
            yield f"still: {', '.join(dict.fromkeys(each.code for each in known))}"


@dataclass
class Summary:
    """A long time in short: what was done in all, and the fewest and the most VMs."""

    name: str = ""
    since: timedelta | None = None
    until: timedelta = timedelta(0)
    done: Counter[str] = field(default_factory=Counter)
    refused: dict[str, None] = field(default_factory=dict)
    alive: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    last: str = ""

    def add(self, at: timedelta, plan: Plan, spec: Spec) -> None:
        """One cycle more."""
        self.since, self.until = at if self.since is None else self.since, at
        for step in plan.steps:
            self.done[_kind(step)] += 1
        self.refused |= dict.fromkeys(each.code for each in plan.refusals)
        self.alive.append(sum(1 for each in plan.judged if each.status in _LIVING))
        self.ready.append(sum(1 for each in plan.judged if each.is_ready))
        self.last = _state(plan, spec)

    def tell(self) -> Iterator[str]:
        """All of it."""
        done = ", ".join(f"{kind}: {number}" for kind, number in self.done.items())
        lines = [
            f"{self.name}{done or 'nothing is done'}",
            f"alive: {_range(self.alive)}, ready: {_range(self.ready)}",
        ]
        if self.refused:
            lines.append(f"not more at times: {', '.join(self.refused)}")
        yield from stamped(
            f"{_clock(self.since or self.until)} to {_clock(self.until)}",
            [*lines, f"at last: {self.last}"],
        )


def stamped(time: str, lines: list[str]) -> Iterator[str]:
    """A paragraph with its time at the margin."""
    first, *rest = lines
    yield f"  {time}  {first}"
    for line in rest:
        yield f"         {line}"


def _clock(at: timedelta) -> str:
    minutes, rest = divmod(int(at.total_seconds()), 60)
    if minutes < 60:
        return f"{minutes:02d}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _state(plan: Plan, spec: Spec) -> str:
    group = Counter(each.status.name for each in plan.judged)
    state = ", ".join(f"{number} {status}" for status, number in sorted(group.items()))
    living = [each for each in plan.judged if each.status in _LIVING]
    return f"{state or 'nothing'}{_kinds(living, spec)}{': settled' if plan.is_settled else ''}"


def _kinds(living: list[Judged], spec: Spec) -> str:
    """What is not to be seen in the statuses: outdated VMs, zones, alternatives."""
    words = list[str]()
    if outdated := sum(1 for each in living if each.is_outdated):
        words.append(f"outdated: {outdated}")
    for kind, names in (("image", spec.images), ("flavor", spec.flavors), ("zone", spec.zones)):
        if names and living:
            load = Counter(getattr(each.vm, kind) for each in living)
            words.append(f"{kind}s: {', '.join(f'{name} {load[name]}' for name in sorted(load))}")
    return f" ({'; '.join(words)})" if words else ""


def _steps(plan: Plan) -> list[str]:
    creates = Counter((_made_of(step), step.evidence) for step in plan.creates)
    lines = [f"create {number} ({what}): {why}" for (what, why), number in creates.items()]
    lines += [
        f"{each.method.name.lower()} {each.vm.vm_id}: {each.evidence}" for each in plan.repairs
    ]
    lines += [f"keep {each.vm.vm_id} ({each.reason.name}): {each.evidence}" for each in plan.keeps]
    ended = dict[tuple[str, str], list[str]]()
    for step in plan.terminations:
        ended.setdefault((step.reason.name, step.evidence), []).append(step.vm.vm_id)
    lines += [
        f"terminate {_names(names)} ({reason}): {evidence}"
        for (reason, evidence), names in ended.items()
    ]
    return lines


def _made_of(step: Create) -> str:
    place = step.intent.placement
    kinds = (("image", place.image), ("flavor", place.flavor), ("zone", place.zone))
    return ", ".join([step.reason, *(f"{kind} {name}" for kind, name in kinds if name)])


def _kind(step: Create | Terminate | Repair | Keep) -> str:
    if isinstance(step, Create):
        return f"created ({step.reason})"
    if isinstance(step, Repair):
        return step.method.name.lower()
    return f"{'kept' if isinstance(step, Keep) else 'terminated'} ({step.reason.name})"


def _names(names: list[str]) -> str:
    if len(names) <= _FEW:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def _all(refusals: Iterable[Refusal]) -> list[str]:
    return [f"{each.code}: {each.message}" for each in refusals]


def _key(refusal: Refusal) -> tuple[str, str]:
    return refusal.code, _COUNTDOWN.sub("", refusal.message)


def _range(numbers: list[int]) -> str:
    fewest, most = min(numbers), max(numbers)
    return str(fewest) if fewest == most else f"{fewest} to {most}"
