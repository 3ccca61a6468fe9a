"""The driver as tests open it: the credentials of a test's project, the options that it wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from iaas_service.drivers.openstack import OpenstackCloud, OpenstackOptions
from iaas_service.testing import SUITE_ID
from tests.openstack.ground import Project
from vmshepherd_kit import settings
from vmshepherd_kit.clock import Clock, SystemChance, SystemClock
from vmshepherd_kit.config_file import Suite

# Other tests may use the same two cores.
_PATIENT: Final = {"http_timeout": "100s"}
SUITE: Final = Suite(suite_id=SUITE_ID, state_dir=Path("/"), base_dir=Path("/"), embedded=False)


def driver(
    project: Project, *, auth_url: str = "", clock: Clock | None = None, **options: Any
) -> OpenstackCloud:
    """Not open yet; `auth_url` leads through a proxy."""
    return driver_of({**project.credentials(auth_url), **_PATIENT, **options}, clock=clock)


def driver_of(options: dict[str, Any], *, clock: Clock | None = None) -> OpenstackCloud:
    """Of these options alone."""
    parsed = settings.parse(options, OpenstackOptions, where="options")
    return OpenstackCloud(
        parsed, provider="osk", suite=SUITE, clock=clock or SystemClock(), chance=SystemChance()
    )
