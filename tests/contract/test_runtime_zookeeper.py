"""The store in ZooKeeper, held to the contract of the port on a real ensemble, and what is its own:
several stores over one ensemble, nodes that die, connections that break.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

pytest.register_assert_rewrite("runtime_service.testing")

from runtime_service.drivers.zookeeper import ZookeeperOptions, ZookeeperRuntime  # noqa: E402
from runtime_service.testing import MAX_EVENTS, DurableStoreContract, Lab  # noqa: E402
from tests.support.zookeeper import Ensemble, ensemble_of_this_run  # noqa: E402
from vmshepherd_kit.clock import SystemClock  # noqa: E402
from vmshepherd_kit.config_file import Suite  # noqa: E402

# The nodes of an ensemble are shared by the tests of one process.
pytestmark = pytest.mark.xdist_group("zookeeper")

# Long enough for 26 MiB written on a machine that is busy with other things.
TTL = timedelta(seconds=2)


@pytest.fixture
def node(pytestconfig: pytest.Config) -> Ensemble:
    return ensemble_of_this_run(pytestconfig, nodes=1)


@pytest.fixture
def three(pytestconfig: pytest.Config) -> Ensemble:
    return ensemble_of_this_run(pytestconfig, nodes=3)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(suite_id="test", state_dir=tmp_path, base_dir=tmp_path, embedded=False)


class TestZookeeper(DurableStoreContract):
    @pytest.fixture
    async def lab(self, suite: Suite, node: Ensemble) -> AsyncIterator[Lab]:
        clock = SystemClock()
        options = ZookeeperOptions(
            servers=(node.servers,), working_path=node.room(), max_events=MAX_EVENTS
        )
        async with Lab.running(
            lambda: ZookeeperRuntime.open(options, suite=suite, clock=clock),
            advance=clock.sleep,
            ttl=TTL,
        ) as lab:
            yield lab
