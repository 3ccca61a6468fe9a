"""What `up --ephemeral` does at its end, on the real services behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

import iaas_service.config
import iaas_service.server
import runtime_service.config
import runtime_service.server
from admin import removal
from vmshepherd.iaas.v1 import iaas_service_pb2 as iaas_api
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd.runtime.v1 import runtime_service_pb2 as runtime_api
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, serve, settings, stamps
from vmshepherd_kit.clock import SeededChance, SystemClock
from vmshepherd_kit.config_file import Suite


class HastyClock(SystemClock):
    """A clock on which sleeping takes no time, and yet passes it."""

    def __init__(self) -> None:
        self._slept = timedelta(0)

    def elapsed(self) -> timedelta:
        return super().elapsed() + self._slept

    async def sleep(self, duration: timedelta) -> None:
        self._slept += duration
        await asyncio.sleep(0)


@dataclass
class Place:
    """A store and two clouds, with an owner of presets."""

    runtime: str
    iaas: str
    store: RuntimeServiceStub
    cloud: IaasServiceStub
    chance: SeededChance

    async def locked(self, preset: str) -> tuple[str, int]:
        """A session that holds the lock of a preset, and its token."""
        opening = runtime_api.OpenSessionRequest(
            owner=self.chance.uuid(), ttl=stamps.to_duration(timedelta(minutes=5))
        )
        session = (await dial.ask(self.store.OpenSession, opening)).session
        wish = runtime_api.LockWish(name=f"preset/{preset}")
        request = runtime_api.TryLockRequest(session_id=session.session_id, wishes=[wish])
        [result] = (await dial.ask(self.store.TryLock, request)).results
        return session.session_id, result.acquired.fencing_token

    async def make(self, provider: str, preset: str, *, protected: bool = False) -> str:
        """A VM of a preset, made by an owner that is gone afterwards."""
        session_id, token = await self.locked(preset)
        create = iaas_api.VmCreate(
            request_id=self.chance.uuid(), preset=preset, fencing_token=token, name=preset
        )
        if protected:
            create.spec.metadata["vmshepherd_protected"] = "true"
        request = iaas_api.CreateVmsRequest(provider=provider, creates=[create])
        [result] = (await dial.ask(self.cloud.CreateVms, request)).results
        assert result.status.code == 0, result.status.message
        closing = runtime_api.CloseSessionRequest(session_id=session_id)
        await dial.ask(self.store.CloseSession, closing)
        return result.vm.vm_id

    async def vms(self) -> list[str]:
        """What is there."""
        answers = [
            await dial.ask(self.cloud.ListVms, iaas_api.ListVmsRequest(provider=provider))
            for provider in ("one", "two")
        ]
        return [vm.vm_id for answer in answers for vm in answer.vms]

    async def remove_all(self) -> removal.Removal:
        """What is tested."""
        return await removal.remove_all(
            runtime=self.runtime, iaas=self.iaas, clock=HastyClock(), chance=self.chance
        )


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    suite = Suite(suite_id="trial", state_dir=tmp_path, base_dir=tmp_path, embedded=True)
    chance = SeededChance(1)
    listen = serve.Listen(address="127.0.0.1:0")
    store = runtime_service.config.Config(listen=listen, driver="memory")
    providers = {name: {"driver": "simulated"} for name in ("one", "two")}
    clouds = settings.parse(
        {"listen": {"address": "127.0.0.1:0"}, "providers": providers}, iaas_service.config.Config
    )
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(
            runtime_service.server.running(store, suite=suite, clock=SystemClock(), chance=chance)
        )
        iaas = await stack.enter_async_context(
            iaas_service.server.running(clouds, suite=suite, clock=SystemClock(), chance=chance)
        )
        to_runtime = await stack.enter_async_context(dial.channel(runtime.address))
        to_iaas = await stack.enter_async_context(dial.channel(iaas.address))
        yield Place(
            runtime=runtime.address,
            iaas=iaas.address,
            store=RuntimeServiceStub(to_runtime),
            cloud=IaasServiceStub(to_iaas),
            chance=chance,
        )


async def test_every_vm_of_every_preset_and_provider_goes_the_protected_ones_too(
    place: Place,
) -> None:
    await place.make("one", "web")
    await place.make("two", "web")
    await place.make("one", "cache", protected=True)
    done = await place.remove_all()
    assert (done.removed, done.left) == (3, {})
    assert await place.vms() == []


async def test_what_another_holds_is_left_and_told(place: Place) -> None:
    kept = await place.make("one", "web")
    await place.make("one", "cache")
    await place.locked("web")
    done = await place.remove_all()
    assert done.removed == 1
    assert done.left == {kept: "another holds the lock of preset web"}
    assert await place.vms() == [kept]


async def test_it_leaves_no_session_behind(place: Place) -> None:
    await place.make("one", "web")
    await place.remove_all()
    answer = await dial.ask(place.store.ListSessions, runtime_api.ListSessionsRequest())
    assert list(answer.sessions) == []


async def test_nothing_to_remove_is_no_failure(place: Place) -> None:
    assert await place.remove_all() == removal.Removal()
