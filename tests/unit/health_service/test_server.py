from __future__ import annotations

import resource

import pytest

from health_service.server import _affordable


@pytest.mark.parametrize(("limit", "affordable"), [(20_000, 500), (300, 44), (100, 1)])
def test_a_low_limit_of_open_files_lowers_the_concurrency(
    monkeypatch: pytest.MonkeyPatch, limit: int, affordable: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert _affordable(500) == affordable


def test_no_limit_lowers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (unlimited, unlimited))
    assert _affordable(500) == 500
