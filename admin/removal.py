"""Removing every VM of a suite: what `up --ephemeral` does at its end.

It goes the way that every destruction goes: a session, the lock of each preset, and `TerminateVms`
with its gates, in the name of the person who asked.  The orchestrator must have let go before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from admin.client import actor, pages
from vmshepherd.iaas.v1 import iaas_service_pb2 as iaas_api
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd.iaas.v1.vm_pb2 import Vm, VmState
from vmshepherd.runtime.v1 import runtime_service_pb2 as runtime_api
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, stamps, status
from vmshepherd_kit.clock import Chance, Clock

_EVIDENCE: Final = "up --ephemeral ends"
_PATIENCE: Final = timedelta(seconds=60)
_SESSION: Final = _PATIENCE * 2
_LOOK_AGAIN: Final = timedelta(milliseconds=200)
_BATCH: Final = 500


@dataclass
class Removal:
    """What became of the VMs."""

    removed: int = 0
    left: dict[str, str] = field(default_factory=dict)
    """What is left, VMs by their ids and providers by their names, each with why."""


@asynccontextmanager
async def session(
    stub: RuntimeServiceStub, *, chance: Chance
) -> AsyncIterator[runtime_api.Session]:
    """A session that ends with the block, and its locks with it."""
    request = runtime_api.OpenSessionRequest(
        owner=f"ephemeral-{chance.uuid()}", ttl=stamps.to_duration(_SESSION)
    )
    opened = (await dial.ask(stub.OpenSession, request)).session
    try:
        yield opened
    finally:
        closing = runtime_api.CloseSessionRequest(session_id=opened.session_id)
        await dial.ask(stub.CloseSession, closing)


class Remover:
    """Removes the VMs of a suite, each preset under its lock."""

    def __init__(
        self, runtime: RuntimeServiceStub, iaas: IaasServiceStub, *, session_id: str, clock: Clock
    ) -> None:
        self._runtime = runtime
        self._iaas = iaas
        self._session_id = session_id
        self._clock = clock
        self._tokens: dict[str, int] = {}
        self._floors: dict[str, int] = {}
        self._accepted: set[str] = set()
        self._why: dict[str, str] = {}

    async def remove_all(self) -> Removal:
        """Terminate until nothing is there any more, or until patience ends."""
        beginning = self._clock.elapsed()
        providers = await self._providers()
        while there := [vm for name in providers for vm in await self._look(name)]:
            if self._clock.elapsed() - beginning > _PATIENCE:
                break
            await self._lock({vm.marker.preset for vm in there})
            for name in providers:
                await self._terminate(name, [vm for vm in there if vm.provider == name])
            await self._clock.sleep(_LOOK_AGAIN)
        left = {vm.vm_id: self._why.get(vm.vm_id, "still on its way out") for vm in there}
        left |= {name: self._why[name] for name in providers if name in self._why}
        return Removal(removed=len(self._accepted - left.keys()), left=left)

    async def _providers(self) -> list[str]:
        request = iaas_api.ListProvidersRequest()
        return [
            provider.name
            async for page in pages(self._iaas.ListProviders, request)
            for provider in page.providers
        ]

    async def _look(self, provider: str) -> list[Vm]:
        """The VMs of ours that are there; the records of those that we ended do not count."""
        there: list[Vm] = []
        async for page in pages(self._iaas.ListVms, iaas_api.ListVmsRequest(provider=provider)):
            there += [vm for vm in page.vms if vm.HasField("marker") and not self._is_over(vm)]
            self._floors |= page.token_floors
            if page.complete:
                self._why.pop(provider, None)
            else:
                self._why[provider] = page.incomplete_reason
        return there

    def _is_over(self, vm: Vm) -> bool:
        return vm.state == VmState.VM_STATE_TERMINATED and vm.vm_id in self._accepted

    async def _lock(self, presets: set[str]) -> None:
        wanted = sorted(presets - self._tokens.keys())
        if not wanted:
            return
        wishes = [
            runtime_api.LockWish(name=f"preset/{name}", floor=self._floors.get(name, 0))
            for name in wanted
        ]
        request = runtime_api.TryLockRequest(session_id=self._session_id, wishes=wishes)
        answer = await dial.ask(self._runtime.TryLock, request)
        for preset, result in zip(wanted, answer.results, strict=True):
            if result.HasField("acquired"):
                self._tokens[preset] = result.acquired.fencing_token

    async def _terminate(self, provider: str, vms: Sequence[Vm]) -> None:
        waiting = [vm for vm in vms if vm.vm_id not in self._accepted]
        for vm in waiting:
            if vm.marker.preset not in self._tokens:
                self._why[vm.vm_id] = f"another holds the lock of preset {vm.marker.preset}"
        ours = [vm for vm in waiting if vm.marker.preset in self._tokens]
        for batch in _batches(ours):
            request = iaas_api.TerminateVmsRequest(
                provider=provider, terminations=[self._mutation(vm) for vm in batch]
            )
            answer = await dial.ask(self._iaas.TerminateVms, request)
            for vm, result in zip(batch, answer.results, strict=True):
                error = status.from_proto(result.status)
                if error is None:
                    self._accepted.add(vm.vm_id)
                    self._why.pop(vm.vm_id, None)
                else:
                    self._why[vm.vm_id] = error.message

    def _mutation(self, vm: Vm) -> iaas_api.VmMutation:
        return iaas_api.VmMutation(
            vm_id=vm.vm_id,
            preset=vm.marker.preset,
            fencing_token=self._tokens[vm.marker.preset],
            create_time=vm.create_time,
            reason=iaas_api.MUTATION_REASON_OPERATOR,
            evidence=f"{_EVIDENCE}; asked by {actor()}",
            force=True,
        )


async def remove_all(*, runtime: str, iaas: str, clock: Clock, chance: Chance) -> Removal:
    """Remove every VM that bears the marker of this suite; both services are given by address."""
    async with dial.channel(runtime) as to_runtime, dial.channel(iaas) as to_iaas:
        runtime_stub = RuntimeServiceStub(to_runtime)
        async with session(runtime_stub, chance=chance) as opened:
            remover = Remover(
                runtime_stub,
                IaasServiceStub(to_iaas),
                session_id=opened.session_id,
                clock=clock,
            )
            return await remover.remove_all()


def _batches(vms: Sequence[Vm]) -> Iterator[Sequence[Vm]]:
    for start in range(0, len(vms), _BATCH):
        yield vms[start : start + _BATCH]
