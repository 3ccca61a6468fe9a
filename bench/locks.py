"""Churn of locks under faults: 24 clients, 4 names, sessions of 0.3 s, pauses that are longer.

    python bench/locks.py --driver sqlite --seconds 600 --json

Starts real processes of runtime_service over a real store, breaks them again and again, and judges
what the clients saw: `overlaps` (two that had the right to act at once), `token_regressions`,
`stale_writes` (taken under an old token) and `state_regressions` (something written came undone)
must all be 0.  The exit code is 1 if they are not, or if fewer than 1,000 locks a minute were
granted in a run of a minute or more.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from bench import locks_bulk, locks_stages
from bench.locks_bulk import bulk
from bench.locks_churn import Report, churn
from bench.locks_kills import kills
from vmshepherd_kit import log, serve

DRIVERS: Final = ("memory", "sqlite", "postgres", "zookeeper")
_LEAST_A_SECOND: Final = 10_000 / 600
_A_MINUTE: Final = 60


async def run(driver: str, *, seconds: float, seed: str) -> list[Report]:
    """All stages of a driver, one after the other."""
    stages = locks_stages.of(driver)
    reports = []
    for opening in stages:
        with opening() as stage:
            reports.append(await churn(stage, seconds=seconds / len(stages), seed=seed))
    return reports


def figures(reports: Sequence[Report]) -> dict[str, Any]:
    """The sum of all stages."""
    seconds = sum(report.seconds for report in reports)
    grants = sum(report.grants for report in reports)
    return {
        "seconds": round(seconds, 1),
        "grants": grants,
        "overlaps": sum(len(report.findings.overlaps) for report in reports),
        "token_regressions": sum(len(report.findings.token_regressions) for report in reports),
        "stale_writes": sum(len(report.findings.stale_writes) for report in reports),
        "state_regressions": sum(len(report.findings.state_regressions) for report in reports),
        "incidents": sum(len(report.incidents) for report in reports),
        "grants_per_second": round(grants / seconds, 1),
        "longest_pause_seconds": round(max(report.longest_pause for report in reports), 2),
        "faults": sum((report.faults for report in reports), Counter[str]()),
        "late_writes": sum((report.late_writes for report in reports), Counter[str]()),
        "errors": sum((report.errors for report in reports), Counter[str]()),
    }


def complaints(reports: Sequence[Report]) -> list[str]:
    """What was wrong in each stage, and whether too little went on."""
    found = [
        f"{report.stage}: {each}"
        for report in reports
        for each in (*report.findings.all, *report.incidents)
    ]
    grants, seconds = sum(r.grants for r in reports), sum(r.seconds for r in reports)
    enough = _LEAST_A_SECOND * seconds if seconds >= _A_MINUTE else 1
    if grants < enough:
        found.append(f"only {grants} grants in {seconds:.0f} s: {enough:.0f} are the least")
    return found


async def measure(asked: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what is wrong."""
    if asked.bulk:
        found = await bulk(asked.driver)
        return found, locks_bulk.complaints(asked.driver, found)
    if asked.kills:
        toll = await kills(asked.kills, seed=asked.seed)
        return {**dataclasses.asdict(toll), "wrong": len(toll.wrong)}, toll.wrong
    reports = await run(asked.driver, seconds=asked.seconds, seed=asked.seed)
    return figures(reports), complaints(reports)


async def _until_signal(work: Any) -> Any:
    """The answer; SIGTERM ends it as Ctrl-C does, so that nothing is left running."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def main() -> int:
    """Run and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--driver", choices=DRIVERS, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default="1")
    parser.add_argument(
        "--kills", type=int, metavar="N", help="sqlite: N times kill -9 in mid-transaction, instead"
    )
    parser.add_argument(
        "--bulk", action="store_true", help="10,000 locks and states at once, instead"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    asked = parser.parse_args()
    log.setup("warning")
    if (lack := locks_stages.missing(asked.driver)) is not None:
        parser.error(lack)
    if asked.kills and asked.driver != "sqlite":
        parser.error("--kills is for sqlite: the others are killed as servers, among the faults")
    try:
        found, wrong = serve.run(_until_signal(measure(asked)))
    except asyncio.CancelledError:
        return 130
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    _tell({"driver": asked.driver, "seed": asked.seed, **found}, as_json=asked.json)
    return 1 if wrong else 0


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        words = (
            ", ".join(f"{n} {k}" for k, n in value.items()) if isinstance(value, dict) else value
        )
        print(f"{name:22} {words}")


if __name__ == "__main__":
    sys.exit(main())
