# ruff: noqa: T201  (a command prints)
"""`python -m tests.linearizability`: many histories of one driver, and one line at the end.

`--driver sqlite --histories 100` is the long run; `--seed N` repeats what one history drew.  Every
fourth history has short sessions, which expire.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .check import violation
from .clients import quarrel
from .grounds import GROUNDS
from .scene import SHORT, Ground, Quarrel
from .story import told

_PACE_OF_SHORT_SESSIONS = 0.004


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What became of one history."""

    seed: int
    answered: int
    unanswered: int
    faults: tuple[str, ...]
    stories: tuple[str, ...]
    """One for each name whose calls nothing explains."""
    bugs: tuple[str, ...] = ()
    """Failures without a name."""

    @property
    def is_clean(self) -> bool:
        """Whether all is explained."""
        return not self.stories and not self.bugs

    @property
    def line(self) -> str:
        """For people."""
        bad = len(self.stories)
        found = f"{bad} names are NOT linearizable" if bad else "linearizable"
        found += f", {len(self.bugs)} calls FAILED without a name" if self.bugs else ""
        return (
            f"seed {self.seed}: {self.answered} calls answered, {self.unanswered} open, "
            f"faults: {_counted(self.faults)}: {found}"
        )


def _counted(faults: Iterable[str]) -> str:
    counted = sorted(Counter(faults).items())
    return ", ".join(f"{name} {number} times" for name, number in counted) or "none"


async def judged(what: Quarrel, ground: Ground) -> Verdict:
    """A history, made and checked."""
    record, faults = await quarrel(what, ground)
    histories = record.histories()
    # The search is long work of this process alone: nobody waits for it on the event loop.
    found = {name: await asyncio.to_thread(violation, calls) for name, calls in histories.items()}
    stories = [told(n, histories[n], bad, seed=what.seed) for n, bad in found.items() if bad]
    return Verdict(
        seed=what.seed,
        answered=record.answered(),
        unanswered=record.unanswered(),
        faults=tuple(faults),
        stories=tuple(stories),
        bugs=tuple(record.bugs),
    )


def with_short_sessions(what: Quarrel) -> Quarrel:
    """The same, with sessions that expire and clients that take their time."""
    return replace(what, span=SHORT, pace_seconds=_PACE_OF_SHORT_SESSIONS)


def main() -> int:
    """Run, tell, and fail when anything is not linearizable."""
    wanted = _arguments()
    # Ended by force or not, no server of ours runs on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    first = wanted.first if wanted.seed is None else wanted.seed
    seeds = range(first, first + (wanted.histories if wanted.seed is None else 1))
    verdicts = [asyncio.run(_one(seed, wanted)) for seed in seeds]
    calls = sum(each.answered + each.unanswered for each in verdicts)
    bad = sum(bool(each.stories) for each in verdicts)
    bugs = sum(len(each.bugs) for each in verdicts)
    print(
        f"{wanted.driver}: {len(verdicts)} histories, {calls} calls, not linearizable: {bad}, "
        f"failures without a name: {bugs}"
    )
    return 0 if all(each.is_clean for each in verdicts) else 1


async def _one(seed: int, wanted: argparse.Namespace) -> Verdict:
    what = Quarrel(seed=seed, clients=wanted.clients, names=wanted.names, calls=wanted.calls)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="linearizability-") as folder:
        async with GROUNDS[wanted.driver](Path(folder)) as ground:
            verdict = await judged(with_short_sessions(what) if seed % 4 == 0 else what, ground)
    line = f"{verdict.line} ({time.monotonic() - started:.1f} s)"
    print("\n".join([line, *verdict.stories, *dict.fromkeys(verdict.bugs)]))
    sys.stdout.flush()
    return verdict


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check that the runtime API is linearizable.")
    parser.add_argument("--driver", choices=sorted(GROUNDS), default="sqlite")
    parser.add_argument("--histories", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--names", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1000, help="of each client")
    return parser.parse_args()
