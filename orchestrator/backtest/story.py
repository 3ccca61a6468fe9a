"""What a policy did in a timeline: whom it destroyed and why, what it made, what it refused.

Frozen values, and the `Teller` that `replay` feeds cycle by cycle. It is `comparison` that judges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..clauses import clause_of
from ..model import (
    Create,
    Fate,
    Keep,
    Method,
    Outcome,
    Reason,
    Refusal,
    Repair,
    Terminate,
    VmId,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """A VM that the policy destroyed, so many seconds after the start."""

    at: float
    vm_id: VmId
    reason: Reason
    evidence: str
    clause: str
    # Whether the policy itself had made it in the replay.
    is_made: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Treated:
    """A VM that was repaired in its place, or kept for study where `method` is None."""

    at: float
    vm_id: VmId
    method: Method | None
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Something that was refused: how often, for how many seconds in all, and in which words."""

    code: str
    clause: str
    times: int
    seconds: float
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that one policy did in one timeline."""

    destroyed: tuple[Destroyed, ...] = ()
    treated: tuple[Treated, ...] = ()
    creates: int = 0
    failed_creates: Mapping[str, int] = field(default_factory=dict)
    held: tuple[Held, ...] = ()
    # VMs that did not serve, times the seconds for which they did not.
    missing_seconds: float = 0
    most_missing: int = 0


@dataclass(slots=True)
class Teller:
    """Gathers the story while it happens."""

    destroyed: list[Destroyed] = field(default_factory=list)
    treated: list[Treated] = field(default_factory=list)
    creates: int = 0
    failed_creates: Counter[str] = field(default_factory=Counter)
    missing_seconds: float = 0
    most_missing: int = 0
    _seconds: dict[str, float] = field(default_factory=dict)
    _times: Counter[str] = field(default_factory=Counter)
    _messages: dict[str, str] = field(default_factory=dict)
    _standing: frozenset[str] = frozenset()

    def tell(self, outcomes: Iterable[Outcome], *, at: float, made: Iterable[VmId]) -> None:
        """What became of the steps of one cycle; `made` are VMs of the policy's own making."""
        own = set(made)
        for outcome in outcomes:
            match outcome.step:
                case Create() if outcome.fate is Fate.DONE:
                    self.creates += 1
                case Create():
                    self.failed_creates[outcome.reason] += 1
                case Terminate() as step:
                    self.destroyed.append(_destroyed(step, at=at, is_made=step.vm.vm_id in own))
                case Repair() | Keep() as step:
                    self.treated.append(_treated(step, at=at))

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """What is refused from now on."""
        now = {each.code: each.message for each in refusals}
        self._times.update(now.keys() - self._standing)
        self._messages |= now
        self._standing = frozenset(now)

    def wait(self, seconds: float, *, missing: int) -> None:
        """So much time passes, in which so many VMs do not serve."""
        self.missing_seconds += missing * seconds
        self.most_missing = max(self.most_missing, missing)
        for code in self._standing:
            self._seconds[code] = self._seconds.get(code, 0) + seconds

    def story(self) -> Story:
        """All of it."""
        held = tuple(
            Held(
                code=code,
                clause=clause_of(code),
                times=times,
                seconds=self._seconds.get(code, 0),
                message=self._messages[code],
            )
            for code, times in sorted(self._times.items())
        )
        return Story(
            destroyed=tuple(self.destroyed),
            treated=tuple(self.treated),
            creates=self.creates,
            failed_creates=dict(self.failed_creates),
            held=held,
            missing_seconds=self.missing_seconds,
            most_missing=self.most_missing,
        )


def _destroyed(step: Terminate, *, at: float, is_made: bool) -> Destroyed:
    return Destroyed(
        at=at,
        vm_id=step.vm.vm_id,
        reason=step.reason,
        evidence=step.evidence,
        clause=clause_of(step.reason.name),
        is_made=is_made,
    )


def _treated(step: Repair | Keep, *, at: float) -> Treated:
    method = step.method if isinstance(step, Repair) else None
    return Treated(at=at, vm_id=step.vm.vm_id, method=method, evidence=step.evidence)
