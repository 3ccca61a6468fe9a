"""The section `runtime` of the configuration file: where to listen, and which store to use."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from vmshepherd_kit.serve import Listen
from vmshepherd_kit.settings import Settings

SECTION: Final = "runtime"

# What the stores were called in the configuration files of VmShepherd 1.6.
_FORMER_NAMES: Final = {
    "InMemoryDriver": "memory",
    "PostgresDriver": "postgres",
    "ZookeeperDriver": "zookeeper",
}


def _todays_name(name: object) -> object:
    return _FORMER_NAMES.get(name, name) if isinstance(name, str) else name


class Config(Settings):
    """Settings of runtime_service; the options are understood by the driver alone."""

    listen: Listen = Listen(address="127.0.0.1:50052")
    driver: Annotated[str, BeforeValidator(_todays_name)] = "sqlite"
    options: dict[str, Any] = {}
