"""Stores of this repository, opened as runtime_service opens them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

from runtime_service.port import GROUP, Driver, RuntimeStore
from vmshepherd_kit import drivers, settings
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.config_file import Suite


def opened(
    driver: str, folder: Path, options: Mapping[str, Any] | None = None
) -> AbstractAsyncContextManager[RuntimeStore]:
    """A store of this driver, as runtime_service opens it."""
    kind = cast("type[Driver]", drivers.load(GROUP, driver))
    parsed = settings.parse(options or {}, kind.Options, where="options")
    suite = Suite(suite_id="test", state_dir=folder, base_dir=folder, embedded=False)
    return kind.open(parsed, suite=suite, clock=SystemClock())
