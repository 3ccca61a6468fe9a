from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.config import Config
from vmshepherd_kit import settings


def test_everything_has_a_default() -> None:
    config = settings.parse({}, Config)
    assert config.services.iaas == ("127.0.0.1:50053",)
    assert config.listen.address == "127.0.0.1:50055"
    session = config.session
    # A dead holder is followed within half a minute.
    assert session.ttl + session.lock_delay <= timedelta(seconds=30)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"session": {"ttl": "10s"}}, "must not be more than ttl"),
        ({"session": {"ttl": "20m"}}, "10 minutes"),
        ({"session": {"lock_delay": "11m"}}, "10 minutes"),
        (
            {"session": {"ttl": 2, "refresh": 1, "rpc_timeout": 0.1, "margin": 0.1}},
            "too little for a mutation",
        ),
        ({"mutation_timeout": "1s"}, "1.5 s or more"),
        ({"interval": 0}, "more than 0"),
        ({"services": {"iaas": []}}, "at least 1"),
        ({"intervall": "5s"}, "intervall"),
        ({"breaker": {"count": 0}}, "greater than or equal to 1"),
        ({"breaker": {"percent": 101}}, "less than or equal to 100"),
        ({"breaker": {"window": 0}}, "more than 0"),
        ({"breaker": {"window": "25h"}}, "more than a day"),
        ({"removals": {"percent": 101}}, "less than or equal to 100"),
    ],
)
def test_what_cannot_work_is_refused_at_start(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(settings.Invalid) as caught:
        settings.parse(raw, Config)
    assert said in str(caught.value)


def test_what_is_read_at_start_only_is_named() -> None:
    old = settings.parse({}, Config)
    new = settings.parse({"interval": "5s", "services": {"health": "127.0.0.1:1"}}, Config)
    assert old.needs_restart_for(new) == ["orchestrator.services"]
    raw = {"interval": "5s", "breaker": {"count": 9}, "removals": {"percent": 5}}
    assert not old.needs_restart_for(settings.parse(raw, Config))
