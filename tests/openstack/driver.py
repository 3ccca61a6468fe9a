"""The driver as tests open it: the credentials of a test's project, the options that it wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from iaas_service.domain import Check
from iaas_service.drivers.openstack import OpenstackCloud, OpenstackOptions
from iaas_service.testing import SUITE_ID, eventually
from tests.openstack.ground import Project
from vmshepherd_kit import settings
from vmshepherd_kit.clock import Clock, SystemChance, SystemClock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import Unavailable

# Other tests may use the same two cores.
_PATIENT: Final = {"http_timeout": "100s"}
SUITE: Final = Suite(suite_id=SUITE_ID, state_dir=Path("/"), base_dir=Path("/"), embedded=False)


def driver(
    project: Project, *, auth_url: str = "", clock: Clock | None = None, **options: Any
) -> OpenstackCloud:
    """Not open yet; `auth_url` leads through a proxy."""
    return driver_of({**project.credentials(auth_url), **options}, clock=clock)


def driver_of(options: dict[str, Any], *, clock: Clock | None = None) -> OpenstackCloud:
    """Of these options; it waits for an answer as long as nothing else is said."""
    parsed = settings.parse({**_PATIENT, **options}, OpenstackOptions, where="options")
    return OpenstackCloud(
        parsed, provider="osk", suite=SUITE, clock=clock or SystemClock(), chance=SystemChance()
    )


async def eventually_lists(cloud: OpenstackCloud) -> None:
    """Wait until it lists all there is, whatever it says before."""

    async def lists() -> bool:
        try:
            return (await cloud.list()).complete
        except Unavailable:
            return False

    await eventually(lists)


async def checked(cloud: OpenstackCloud) -> dict[str, Check]:
    """What it says of itself, by the names of the checks."""
    async with cloud:
        return {check.name: check for check in await cloud.check()}
