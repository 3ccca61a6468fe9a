from __future__ import annotations

import pytest

from runtime_service.config import SECTION, Config
from runtime_service.port import GROUP
from vmshepherd_kit import drivers, settings


def test_without_settings_it_is_sqlite_on_the_usual_address() -> None:
    config = settings.parse({}, Config)
    assert (config.driver, config.listen.address) == ("sqlite", "127.0.0.1:50052")


@pytest.mark.parametrize(
    ("former", "today"),
    [
        ("InMemoryDriver", "memory"),
        ("PostgresDriver", "postgres"),
        ("ZookeeperDriver", "zookeeper"),
    ],
)
def test_stores_are_known_by_their_former_names(former: str, today: str) -> None:
    assert settings.parse({"driver": former}, Config).driver == today


def test_a_misspelt_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(settings.Invalid, match=r"runtime\.drivers: unknown key; .*'driver'"):
        settings.parse({"drivers": "sqlite"}, Config, where=SECTION)


def test_both_stores_are_installed() -> None:
    assert {"memory", "sqlite"} <= set(drivers.installed(GROUP))
