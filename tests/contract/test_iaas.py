"""Every driver of iaas_service passes the suite of the port."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from iaas_service.domain import Vm
from iaas_service.drivers.process import ProcessCloud, ProcessOptions
from iaas_service.drivers.simulated import SimulatedCloud, SimulatedOptions
from iaas_service.drivers.simulated.options import Lack
from iaas_service.testing import (
    SUITE_ID,
    CloudContract,
    ConsoleContract,
    EventsContract,
    IdempotentCreateContract,
    RebootContract,
    RebuildContract,
)
from vmshepherd_kit.clock import SystemChance, SystemClock
from vmshepherd_kit.config_file import Suite


def suite(folder: Path) -> Suite:
    return Suite(suite_id=SUITE_ID, state_dir=folder, base_dir=folder, embedded=False)


def simulated(options: SimulatedOptions) -> SimulatedCloud:
    return SimulatedCloud(
        options,
        provider="simulated",
        suite=suite(Path("/nowhere")),
        clock=SystemClock(),
        chance=SystemChance(),
    )


class SimulatedWithLittle(CloudContract):
    async def end(self, cloud: SimulatedCloud, vm: Vm) -> None:
        cloud.world.kill(vm.vm_id)

    async def stop(self, cloud: SimulatedCloud, vm: Vm) -> None:
        cloud.world.stop(vm.vm_id)


class Simulated(
    SimulatedWithLittle, EventsContract, RebootContract, RebuildContract, ConsoleContract
):
    async def say(self, cloud: SimulatedCloud, vm: Vm, text: str) -> None:
        cloud.world.say(vm.vm_id, text)


class TestSimulatedWithIdempotentCreates(Simulated, IdempotentCreateContract):
    @pytest.fixture
    async def cloud(self) -> AsyncIterator[SimulatedCloud]:
        async with simulated(SimulatedOptions()) as cloud:
            yield cloud


class TestSimulatedWithoutIdempotentCreates(Simulated):
    @pytest.fixture
    async def cloud(self) -> AsyncIterator[SimulatedCloud]:
        slowly = SimulatedOptions(
            idempotent=False,
            latency=timedelta(milliseconds=1),
            terminate_time=timedelta(milliseconds=20),
        )
        async with simulated(slowly) as cloud:
            yield cloud


class TestSimulatedThatCanDoNothingBeyondTheLeast(SimulatedWithLittle):
    @pytest.fixture
    async def cloud(self) -> AsyncIterator[SimulatedCloud]:
        least = SimulatedOptions(idempotent=False, lacks=frozenset(Lack))
        async with simulated(least) as cloud:
            yield cloud


class TestProcess(
    EventsContract, RebootContract, RebuildContract, ConsoleContract, IdempotentCreateContract
):
    @pytest.fixture
    async def cloud(self, tmp_path: Path) -> AsyncIterator[ProcessCloud]:
        async with ProcessCloud(
            ProcessOptions(),
            provider="process",
            suite=suite(tmp_path),
            clock=SystemClock(),
            chance=SystemChance(),
        ) as cloud:
            yield cloud
            for vm in (await cloud.list()).vms:
                await cloud.terminate(vm)

    async def end(self, cloud: ProcessCloud, vm: Vm) -> None:
        os.kill(pid(cloud, vm), signal.SIGKILL)

    async def stop(self, cloud: ProcessCloud, vm: Vm) -> None:
        os.kill(pid(cloud, vm), signal.SIGSTOP)

    async def say(self, cloud: ProcessCloud, vm: Vm, text: str) -> None:
        with (cloud.root.path / vm.vm_id / "log").open("a") as log:
            log.write(text)


def pid(cloud: ProcessCloud, vm: Vm) -> int:
    return int(vm.cloud_state.removeprefix("pid "))
