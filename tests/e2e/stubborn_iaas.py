"""An iaas_service of simulated VMs, some of which cannot be destroyed: those that a file names.

Run as a process in place of `vmshepherd serve iaas`, with the configuration and that file.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from iaas_service.config import SECTION, Config
from iaas_service.domain import Vm
from iaas_service.drivers.simulated import SimulatedCloud, SimulatedOptions
from iaas_service.providers import Provider
from iaas_service.server import serving
from vmshepherd_kit import entry, serve
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import Unavailable

CONFIG, STUBBORN = (Path(argument) for argument in sys.argv[1:3])


class StubbornCloud(SimulatedCloud):
    """Refuses to destroy what the file names."""

    async def terminate(self, vm: Vm) -> bool:
        """See the port."""
        if STUBBORN.exists() and vm.vm_id in STUBBORN.read_text():
            raise Unavailable("the cloud cannot delete this VM at present")
        return await super().terminate(vm)


@asynccontextmanager
async def running(
    config: Config, /, *, suite: Suite, clock: Clock, chance: Chance
) -> AsyncIterator[serve.Served]:
    """The service with one provider."""
    cloud = StubbornCloud(
        SimulatedOptions(), provider="stubborn", suite=suite, clock=clock, chance=chance
    )
    provider = Provider.of(
        "stubborn", "simulated", cloud, suite_id=suite.suite_id, parallel_calls=50
    )
    async with (
        cloud,
        serving([provider], config, suite=suite, clock=clock, chance=chance) as server,
    ):
        yield server


if __name__ == "__main__":
    sys.exit(entry.run(SECTION, Config, running, path=CONFIG))
