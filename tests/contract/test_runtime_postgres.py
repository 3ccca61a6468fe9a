"""The driver `postgres`, held to the contract of the port on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("runtime_service.testing")

from runtime_service.drivers.postgres import PostgresOptions, PostgresRuntime  # noqa: E402
from runtime_service.testing import MAX_EVENTS, DurableStoreContract, Lab  # noqa: E402
from vmshepherd_kit import settings  # noqa: E402
from vmshepherd_kit.clock import SystemClock  # noqa: E402
from vmshepherd_kit.config_file import Suite  # noqa: E402


class TestPostgres(DurableStoreContract):
    @pytest.fixture
    async def lab(self, tmp_path: Path, postgres_options: dict[str, Any]) -> AsyncIterator[Lab]:
        clock = SystemClock()
        suite = Suite(suite_id="test", state_dir=tmp_path, base_dir=tmp_path, embedded=False)
        options = settings.parse({**postgres_options, "max_events": MAX_EVENTS}, PostgresOptions)
        async with Lab.running(
            lambda: PostgresRuntime.open(options, suite=suite, clock=clock),
            advance=clock.sleep,
            ttl=timedelta(seconds=3),
        ) as lab:
            yield lab
