"""One PostgreSQL server for all contract tests of a process, and a schema of its own for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import postgres

_schemas = itertools.count(1)


@pytest.fixture(scope="session")
def _postgres() -> Iterator[postgres.Server]:
    if (how := postgres.missing()) is not None:
        pytest.skip(how)
    with postgres.running() as server:
        yield server


@pytest.fixture
def postgres_server(_postgres: postgres.Server) -> postgres.Server:
    """The server; it runs, whatever the test before did to it."""
    _postgres.resume()
    _postgres.start()
    return _postgres


@pytest.fixture
def postgres_options(postgres_server: postgres.Server) -> dict[str, Any]:
    """Options of the driver, with a schema that no other test uses, and patience with a machine
    that is slow at times.
    """
    patience = {"statement_timeout": "20s", "connect_timeout": "20s"}
    return postgres_server.options(schema=f"test_{next(_schemas)}", **patience)
