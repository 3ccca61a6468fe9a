"""Clients quarrel over each store while it suffers, and one order explains all that they were told.

`python -m tests.linearizability --driver postgres --histories 100` is the long run of the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.linearizability import servers
from tests.linearizability.grounds import GROUNDS
from tests.linearizability.run import judged, with_short_sessions
from tests.linearizability.scene import Quarrel

# Servers start anew, on a machine that may have little time for them.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BRIEF = Quarrel(seed=1, calls=60, faults=2, pace_seconds=0.02, respite_seconds=0.5)


@pytest.mark.parametrize(
    "ground", ["memory", "sqlite", "sqlite-wire", "postgres", "postgres-wire", "zookeeper"]
)
async def test_one_order_explains_what_clients_were_told_under_faults(
    ground: str, tmp_path: Path
) -> None:
    await is_explained(ground, BRIEF, tmp_path)


# On ZooKeeper so many calls stay open that the search is long: the long run does that.
@pytest.mark.parametrize("ground", ["memory", "sqlite", "postgres"])
async def test_one_order_explains_it_when_sessions_expire(ground: str, tmp_path: Path) -> None:
    await is_explained(ground, with_short_sessions(BRIEF), tmp_path)


async def is_explained(ground: str, what: Quarrel, folder: Path) -> None:
    if how := servers.missing(ground):
        pytest.skip(how)
    async with GROUNDS[ground](folder) as there:
        verdict = await judged(what, there)
        expected = what.faults if there.faults else 0
    assert not verdict.stories, "\n".join([verdict.line, *verdict.stories])
    assert not verdict.bugs, "\n".join([verdict.line, *dict.fromkeys(verdict.bugs)])
    # A store that answers nothing is linearizable, too.
    assert verdict.answered > what.clients * what.calls / 2, verdict.line
    assert len(verdict.faults) >= expected, verdict.line
