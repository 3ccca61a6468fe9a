"""The driver `zookeeper`, held to the contract of the port on a real ensemble.

Time is that of a fake clock: the ensemble's own plays no part, and a busy machine ends no session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

pytest.register_assert_rewrite("runtime_service.testing")

from runtime_service.testing import MAX_EVENTS, DurableStoreContract, Lab  # noqa: E402
from tests.support.zookeeper import ensemble_of_this_run  # noqa: E402
from tests.support.zookeeper_stores import opened  # noqa: E402
from vmshepherd_kit.testing import FakeClock  # noqa: E402

# The nodes of an ensemble are shared by the tests of one process.
pytestmark = pytest.mark.xdist_group("zookeeper")


class TestZookeeper(DurableStoreContract):
    @pytest.fixture
    async def lab(self, pytestconfig: pytest.Config) -> AsyncIterator[Lab]:
        node = ensemble_of_this_run(pytestconfig, nodes=1)
        room, clock = node.room(), FakeClock()

        async def advance(duration: timedelta) -> None:
            await clock.advance(duration)
            # What a look in the background would see now.
            await lab.store.list_sessions(after=0, limit=1)

        async with Lab.running(
            lambda: opened(node.servers, room, clock=clock, max_events=MAX_EVENTS), advance=advance
        ) as lab:
            yield lab
