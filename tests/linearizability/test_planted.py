"""The check works: what is wrong with a store is found within a handful of histories."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from runtime_service.drivers.memory import MemoryOptions, MemoryRuntime
from tests.linearizability import planted
from tests.linearizability.grounds import far
from tests.linearizability.run import Verdict, judged, with_short_sessions
from tests.linearizability.scene import Ground, Quarrel
from vmshepherd_kit.clock import SystemClock

A_HANDFUL = 5
SMALL = Quarrel(seed=1, clients=6, names=3, calls=120)

BY_TOKENS_AND_VERSIONS = [
    planted.StaleReads,
    planted.WritesUnderAnyToken,
    planted.WritesOfAnySession,
    planted.TwoHolders,
    planted.Robbery,
    planted.TokensThatStandStill,
    planted.LostWrites,
    planted.WritesUponAnyVersion,
    planted.RepeatedWrites,
    planted.RefusedAtRandom,
    planted.ClosedSessionsLiveOn,
]
BY_TIME = [planted.EarlyExpiry, planted.NoLockDelay, planted.ExpiredSessionsComeBack]


@pytest.mark.parametrize("spoilt", BY_TOKENS_AND_VERSIONS)
async def test_a_planted_fault_is_found_within_a_handful_of_histories(
    spoilt: type[MemoryRuntime],
) -> None:
    await is_found(spoilt, SMALL)


@pytest.mark.parametrize("spoilt", BY_TIME)
async def test_a_planted_fault_of_expiry_is_found_within_a_handful_of_histories(
    spoilt: type[MemoryRuntime],
) -> None:
    await is_found(spoilt, with_short_sessions(SMALL))


async def is_found(spoilt: type[MemoryRuntime], what: Quarrel) -> None:
    for seed in range(1, A_HANDFUL + 1):
        verdict = await on(spoilt, what, seed)
        if verdict.stories:
            assert "no order explains" in verdict.stories[0]
            print(verdict.stories[0])  # noqa: T201  (pytest shows it with -s)
            return
    pytest.fail(f"{A_HANDFUL} histories, and nothing was found")


async def on(store: type[MemoryRuntime], what: Quarrel, seed: int) -> Verdict:
    opened = store(MemoryOptions(), SystemClock())
    return await judged(replace(what, seed=seed), Ground(stores=[far(opened, Random(seed))]))
