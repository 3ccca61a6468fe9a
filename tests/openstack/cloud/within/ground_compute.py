"""Runs as nova-compute: the service as packaged, with two methods replaced.

Consoles: what a VM says is the file `console/ID` in the folder that GROUND_FOLDER names, when there
is one.  Allocations: Nova of this release reads those of every server of the host from placement at
every build and delete, one GET each under the host's lock, for the sake of PCI devices alone; with
hundreds of servers on a host it would do hardly anything else.
"""

import os
from pathlib import Path
from typing import Any

from nova.cmd import compute  # type: ignore[import-not-found]  # isort: skip  it patches the world
from nova import conf  # type: ignore[import-not-found]
from nova.scheduler.client import report  # type: ignore[import-not-found]
from nova.virt import fake  # type: ignore[import-not-found]

CONSOLES = Path(os.environ["GROUND_FOLDER"]) / "console"

_console_output = fake.FakeDriver.get_console_output
_allocations = report.SchedulerReportClient.get_allocations_for_provider_tree


def console_output(driver: Any, context: Any, instance: Any) -> Any:
    """What the VM was made to say, or what the fake hypervisor says always."""
    said = CONSOLES / str(instance.uuid)
    return said.read_bytes() if said.exists() else _console_output(driver, context, instance)


def allocations(client: Any, context: Any, nodename: str) -> Any:
    """None, unless they are used."""
    if conf.CONF.pci.report_in_placement:
        return _allocations(client, context, nodename)
    return {}


def main() -> Any:
    """Replace the methods, and be nova-compute."""
    fake.FakeDriver.get_console_output = console_output
    report.SchedulerReportClient.get_allocations_for_provider_tree = allocations
    return compute.main()
