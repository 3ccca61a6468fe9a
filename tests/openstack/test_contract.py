"""The driver `openstack` passes the suite of the port, on the real OpenStack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from iaas_service.domain import Vm
from iaas_service.drivers.openstack import OpenstackCloud
from iaas_service.testing import (
    ConsoleContract,
    EventsContract,
    RebootContract,
    RebuildContract,
    eventually_runs,
)
from tests.openstack.driver import driver
from tests.openstack.ground import OpenStack, Project


class TestOpenstack(EventsContract, RebootContract, RebuildContract, ConsoleContract):
    @pytest.fixture(autouse=True)
    def _ground(self, openstack: OpenStack, project: Project) -> None:
        self.openstack = openstack
        self.project = project

    @pytest.fixture
    async def cloud(self) -> AsyncIterator[OpenstackCloud]:
        async with driver(self.project) as cloud:
            yield cloud

    async def end(self, cloud: OpenstackCloud, vm: Vm) -> None:
        # While it is being made, what Nova says of it is overwritten.
        await eventually_runs(cloud, vm.vm_id)
        await asyncio.to_thread(self.openstack.set_state, vm.vm_id, "error")

    async def stop(self, cloud: OpenstackCloud, vm: Vm) -> None:
        await eventually_runs(cloud, vm.vm_id)
        await asyncio.to_thread(self.project.act, vm.vm_id, "os-stop")

    async def say(self, cloud: OpenstackCloud, vm: Vm, text: str) -> None:
        await eventually_runs(cloud, vm.vm_id)
        await asyncio.to_thread(self.openstack.say, vm.vm_id, text)
