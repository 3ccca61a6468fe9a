"""Settings of iaas_service: its providers and how much may be destroyed.

Parsed once, whole.  Options of a driver are parsed by the driver's own class.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PositiveInt, StringConstraints

from vmshepherd_kit.serve import Listen
from vmshepherd_kit.settings import Settings

from .gates import Limits

SECTION: Final = "iaas"

# Names that configuration files of VmShepherd 1.6 use.
_ALIASES: Final = {"DummyIaasDriver": "simulated", "OpenStackDriver": "openstack"}

ProviderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


def _driver_name(name: object) -> object:
    return _ALIASES.get(name, name) if isinstance(name, str) else name


class ProviderConfig(Settings):
    """A cloud, a region or a project of one."""

    driver: Annotated[str, BeforeValidator(_driver_name)]
    options: dict[str, Any] = {}
    parallel_calls: PositiveInt = 50
    """Most VMs that are made or destroyed at a time."""


class Config(Settings):
    """The section `iaas`."""

    listen: Listen = Listen(address="127.0.0.1:50053")
    providers: Annotated[dict[ProviderName, ProviderConfig], Field(min_length=1)] = {
        "process": ProviderConfig(driver="process")
    }
    """The first is the default of presets that name none."""
    limits: Limits = Limits()
