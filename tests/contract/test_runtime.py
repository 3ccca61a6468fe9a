"""The stores of this repository, held to the contract of the port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

pytest.register_assert_rewrite("runtime_service.testing")

from runtime_service.drivers.memory import MemoryOptions, MemoryRuntime  # noqa: E402
from runtime_service.drivers.sqlite import SqliteOptions, SqliteRuntime  # noqa: E402
from runtime_service.testing import (  # noqa: E402
    MAX_EVENTS,
    DurableStoreContract,
    Lab,
    RuntimeStoreContract,
)
from vmshepherd_kit.clock import SystemClock  # noqa: E402
from vmshepherd_kit.config_file import Suite  # noqa: E402
from vmshepherd_kit.testing import FakeClock  # noqa: E402


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(suite_id="test", state_dir=tmp_path, base_dir=tmp_path, embedded=False)


class TestMemory(RuntimeStoreContract):
    @pytest.fixture
    async def lab(self, suite: Suite) -> AsyncIterator[Lab]:
        clock = FakeClock()
        options = MemoryOptions(max_events=MAX_EVENTS)
        async with Lab.running(
            lambda: MemoryRuntime.open(options, suite=suite, clock=clock), advance=clock.advance
        ) as lab:
            yield lab


class TestSqlite(DurableStoreContract):
    @pytest.fixture
    async def lab(self, suite: Suite) -> AsyncIterator[Lab]:
        clock = FakeClock()
        options = SqliteOptions(max_events=MAX_EVENTS)
        async with Lab.running(
            lambda: SqliteRuntime.open(options, suite=suite, clock=clock), advance=clock.advance
        ) as lab:
            yield lab


class TestSqliteByTheRealClock(DurableStoreContract):
    @pytest.fixture
    async def lab(self, suite: Suite) -> AsyncIterator[Lab]:
        clock = SystemClock()
        options = SqliteOptions(max_events=MAX_EVENTS)
        async with Lab.running(
            lambda: SqliteRuntime.open(options, suite=suite, clock=clock),
            advance=clock.sleep,
            ttl=timedelta(seconds=3),
        ) as lab:
            yield lab
