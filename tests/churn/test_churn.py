"""A short run of bench/locks.py on each store: faults are survived, and locks stay locks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from bench import locks_stages
from bench.locks_churn import Report, churn
from bench.locks_stages import Opening
from tests.e2e import linux

pytestmark = pytest.mark.e2e

SEED = "a short run"


async def short_run(opening: Opening, *, seconds: float, faults: Collection[str] = ()) -> None:
    """Faults follow each other as fast as they are survived, or nearly so.

    On a busy machine nobody gets far within a short life: then sessions live longer.
    """
    with opening() as stage:
        for ttl in (0.3, 1, 3, 9):
            quick = replace(stage, beat=1.5)
            report = await churn(quick, seconds=seconds, seed=SEED, ttl=ttl)
            print(report)  # noqa: T201  pytest shows it when the test fails
            assert report.findings.all == ()
            assert report.incidents == []
            if went_far(report) and report.faults.keys() >= set(faults):
                return
    pytest.fail("too few locks were granted, or too few faults survived, to prove anything")


def went_far(report: Report) -> bool:
    """One in ten writes late: among so many, some are told so, or the check would prove nothing."""
    refused = report.late_writes["SESSION_LOST"] + report.late_writes["STALE_FENCING_TOKEN"]
    return bool(report.grants > 20 and report.faults and (refused or report.grants < 100))


def demand_server_of(driver: str) -> None:
    if (lack := locks_stages.missing(driver)) is not None:
        pytest.skip(lack)


async def test_locks_of_memory_stay_locks_when_the_process_is_held_up() -> None:
    await short_run(locks_stages.memory, seconds=6)


async def test_locks_of_sqlite_survive_kills_and_files_that_may_not_grow() -> None:
    faults = {"service killed", "files may not grow"}
    await short_run(locks_stages.sqlite, seconds=15, faults=faults)


async def test_locks_of_sqlite_survive_a_full_disk() -> None:
    if not linux.with_own_mounts():
        # The test above stands in for this one: files that may not grow.
        return
    await short_run(locks_stages.sqlite_on_a_small_disk, seconds=8, faults={"disk full"})


async def test_locks_of_postgres_survive_crashes_and_connections_that_end() -> None:
    demand_server_of("postgres")
    await short_run(locks_stages.postgres_server, seconds=12, faults={"server crashed"})


async def test_locks_of_postgres_survive_a_failover() -> None:
    demand_server_of("postgres")
    await short_run(locks_stages.postgres_pair, seconds=8, faults={"failed over"})


async def test_locks_of_zookeeper_survive_leaders_and_majorities_that_are_gone() -> None:
    demand_server_of("zookeeper")
    await short_run(locks_stages.zookeeper_ensemble, seconds=15)
