"""Suites for end-to-end tests: each has its own folder and ports, and leaves nothing running."""
# ruff: noqa: T201  (pytest shows what is printed when a test fails)

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.e2e.suite import Suite
from tests.support import ports

# Below the ports that the kernel gives to outgoing connections, and far from the suite's own.
_PORTS = ports.free(18_000, 30_000)
_OF_A_SUITE = 6
_LOG_BYTES = 12_000


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    """A suite without presets, not started yet."""
    with _ended(Suite(tmp_path / "suite", free_ports(_OF_A_SUITE))) as suite:
        yield suite


@pytest.fixture(scope="module")
def shared_suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A suite for all tests of a file, each with presets of its own; it runs."""
    folder = tmp_path_factory.mktemp("shared")
    with _ended(Suite(folder / "suite", free_ports(_OF_A_SUITE))) as suite:
        suite.up()
        yield suite


@contextmanager
def _ended(suite: Suite) -> Iterator[Suite]:
    try:
        yield suite
    finally:
        _tell(suite)
        suite.close()


def free_ports(number: int) -> list[int]:
    """Ports on which nobody listens, given to nobody else by this process."""
    return list(itertools.islice(_PORTS, number))


def _tell(suite: Suite) -> None:
    """Pytest shows it when the test failed."""
    for name, daemon in suite.daemons.items():
        state = "runs" if daemon.is_alive else "has ended"
        print(f"--- {name} {state}\n{daemon.said()[-_LOG_BYTES:]}")
    try:
        for view in suite.list_presets().presets:
            print(f"--- {view}")
    except grpc.RpcError as e:
        print(f"--- presets cannot be asked for: {e!r}")
