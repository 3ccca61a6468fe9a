"""How long presets were without a replica that can work, and whether that was longer than it may
be.  Pure.

Fed with looks at the store. A preset is attended while a replica that is well holds it; a gap has
causes: what befell the replica that held it, and the one that it was to fall to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.replicas_fleet import Hit, Kind, Life

# A look of the replicas at each other, and one of ours.
LOOK_SECONDS: Final = 1.1
TERM_SECONDS: Final = 2.0
# From one well replica to another, because one has come: "within seconds".
MOVE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Lock:
    """Who holds a preset, under which token."""

    life: Life | None
    fencing_token: int


@dataclass(slots=True)
class Gap:
    """A time without a replica that could work on a preset."""

    preset: str
    since: float
    former: Life | None
    hits: set[Hit] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Takeover:
    """A gap that is over."""

    preset: str
    causes: frozenset[Kind]
    is_single: bool
    """Whether it had one cause, and nothing else befell who was to follow."""
    seconds: float
    allowed: float
    to_another: bool

    @property
    def is_late(self) -> bool:
        """Whether it took longer than it may."""
        return self.seconds > self.allowed


class Takeovers:
    """All gaps of a run, open and over."""

    def __init__(self, presets: Iterable[str], *, ttl_and_delay: float) -> None:
        self._presets = list(presets)
        self._limits = {
            Kind.KILL: ttl_and_delay + LOOK_SECONDS,
            Kind.STOP: ttl_and_delay + LOOK_SECONDS,
            Kind.TERM: TERM_SECONDS,
        }
        self._holders: dict[str, Life] = {}
        self._tokens: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self.gaps: dict[str, Gap] = {}
        self.over: list[Takeover] = []
        self.wrong: list[str] = []

    def look(
        self, now: float, locks: Mapping[str, Lock], home: Callable[[str], Life | None]
    ) -> None:
        """What the store says at one moment; `home` is whom a preset falls to."""
        for preset in self._presets:
            lock = locks.get(preset)
            self._check_token(preset, lock)
            if lock and lock.life and lock.life.is_well:
                self._attended(now, preset, lock.life)
            else:
                self._left(now, preset, home(preset))

    def holder(self, preset: str) -> Life | None:
        """Who attends to it now."""
        return None if preset in self.gaps else self._holders.get(preset)

    def attended_for(self, preset: str, now: float) -> float:
        """Seconds since its present holder has it; 0 within a gap."""
        return 0.0 if preset in self.gaps else now - self._since.get(preset, now)

    def still_late(self, now: float) -> list[str]:
        """Presets that nobody attends to, longer than may be."""
        return [
            f"{gap.preset}: nobody attends to it since {now - gap.since:.1f} s"
            for gap in self.gaps.values()
            if now > self._deadline(gap)
        ]

    def _attended(self, now: float, preset: str, life: Life) -> None:
        gap, former = self.gaps.pop(preset, None), self._holders.get(preset)
        if former is not life:
            self._since[preset] = now
        self._holders[preset] = life
        if gap is None or gap.former is None:
            return
        self.over.append(
            Takeover(
                preset=preset,
                causes=frozenset(hit.kind for hit in gap.hits),
                is_single=len(gap.hits) == 1,
                seconds=now - gap.since,
                allowed=self._deadline(gap) - gap.since,
                to_another=life is not gap.former,
            )
        )

    def _left(self, now: float, preset: str, home: Life | None) -> None:
        former = self._holders.get(preset)
        gap = self.gaps.get(preset)
        if gap is None:
            gap = self.gaps[preset] = Gap(preset, _lost_at(former, now), former)
        gap.hits |= {
            life.hits[-1]
            for life in (former, home)
            if life is not None and life.hits and self._is_felt(life, now)
        }

    def _is_felt(self, life: Life, now: float) -> bool:
        """Whether what befell a replica may still be felt: one that stood still goes on, and finds
        then that its session has ended.
        """
        hit = life.hits[-1]
        return not life.is_well or now < hit.at + self._limits[hit.kind]

    def _deadline(self, gap: Gap) -> float:
        ends = [hit.at + self._limits[hit.kind] for hit in gap.hits]
        return max([*ends, gap.since + (TERM_SECONDS if ends else MOVE_SECONDS)])

    def _check_token(self, preset: str, lock: Lock | None) -> None:
        token, before = lock.fencing_token if lock else 0, self._tokens.get(preset, 0)
        if token < before:
            self.wrong.append(f"{preset}: token went back from {before} to {token}")
        self._tokens[preset] = max(token, before)


def _lost_at(life: Life | None, now: float) -> float:
    return life.hits[-1].at if life and not life.is_well and life.hits else now
