# ruff: noqa: T201  (a command prints)
"""`python -m tests.simulation`: many seeds on all cores, and one line at the end.

`SEEDS=n HOURS=h make simulate` calls it. `--seed N` runs one seed and tells its last lines.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .simulate import Course, Verdict, simulate

CORPUS = Path(__file__).with_name("corpus.txt")
LINES = 60
PROGRESS_EVERY = 10


def main() -> int:
    """Run, tell, and fail when anything was violated."""
    wanted = _arguments()
    seeds = [wanted.seed] if wanted.seed is not None else _seeds(wanted.first, wanted.seeds)
    verdicts = list(_told(_run(seeds, wanted.hours, wanted.jobs), of=len(seeds)))
    print(closing_line(verdicts))
    return 0 if all(each.is_clean for each in verdicts) else 1


def closing_line(verdicts: Sequence[Verdict]) -> str:
    """What it all came to."""
    hours = sum(each.hours for each in verdicts)
    bad = sum(len(each.violations) for each in verdicts)
    return f"seeds: {len(verdicts)}, simulated hours: {hours:.0f}, violations: {bad}"


def corpus() -> list[int]:
    """Seeds that failed once; they run every time."""
    lines = CORPUS.read_text(encoding="utf-8").splitlines()
    return [int(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Simulate the suite under faults.")
    parser.add_argument("--seeds", type=int, default=100, help="how many, beside the corpus")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--hours", type=float, default=1.0, help="of chaos, for each seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    return parser.parse_args()


def _seeds(first: int, number: int) -> list[int]:
    return list(dict.fromkeys([*corpus(), *range(first, first + number)]))


def _run(seeds: Iterable[int], hours: float, jobs: int) -> Iterator[Verdict]:
    if jobs == 1:
        yield from map(_one, [(seed, hours) for seed in seeds])
        return
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=20) as pool:
        yield from pool.imap(_one, [(seed, hours) for seed in seeds])


def _one(work: tuple[int, float]) -> Verdict:
    seed, hours = work
    return simulate(seed, Course(hours=hours))


def _told(verdicts: Iterable[Verdict], *, of: int) -> Iterator[Verdict]:
    for done, verdict in enumerate(verdicts, start=1):
        if not verdict.is_clean:
            print(f"seed {verdict.seed} of {_commit()}, trace {verdict.digest}")
            print("\n".join(verdict.lines[-LINES:]))
            print("\n".join(f"  {each}" for each in verdict.violations), flush=True)
        if done % PROGRESS_EVERY == 0:
            print(f"{done} of {of} seeds", file=sys.stderr, flush=True)
        yield verdict


def _commit() -> str:
    git = ["git", "rev-parse", "--short", "HEAD"]
    answer = subprocess.run(git, capture_output=True, text=True, check=False)
    return f"commit {answer.stdout.strip() or 'unknown'}"


if __name__ == "__main__":
    sys.exit(main())
