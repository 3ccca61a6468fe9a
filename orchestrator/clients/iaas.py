"""The iaas services: listings, creates, repairs and terminations, many presets a call.

One listing a provider serves every preset that asks within a moment. A mutation whose call as a
whole failed has an unknown outcome: it may have been delivered. Called by `observe` and `act`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import grpc

from vmshepherd.iaas.v1 import iaas_service_pb2 as pb
from vmshepherd.iaas.v1 import vm_pb2
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd_kit import dial, stamps
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import NotFound, ShepherdError

from ..model import Cloud, Method, PresetName, Vm, VmId
from .batch import Batch
from .calls import Calls, ConsoleWish, Listing, Mutation, Rebuild, Tokens, Wanted, weight

DISCOVER_DEADLINE = timedelta(seconds=3)
# A listing is the dearest call: stragglers are worth waiting for.
LISTING_MOMENT = timedelta(milliseconds=20)
# Consoles that the service reads in one call.
CONSOLES_PER_CALL = 64
# Never sent again by the channel: a repeat may make a second VM, or restart one twice.
ONCE = tuple(
    ("vmshepherd.iaas.v1.IaasService", method)
    for method in ("CreateVms", "RebootVms", "RebuildVms")
)

_METHODS = {
    vm_pb2.PROVIDER_TRAIT_REBOOT: Method.REBOOT,
    vm_pb2.PROVIDER_TRAIT_REBUILD: Method.REBUILD,
}


@dataclass(slots=True)
class _Provider:
    """One provider, and the calls under way to it."""

    stub: IaasServiceStub
    cloud: Cloud
    has_events: bool
    listings: Batch[PresetName, Listing] = field(init=False)
    readings: Batch[Wanted, Vm | None] = field(init=False)
    creates: Batch[Mutation[pb.VmCreate], Vm] = field(init=False)
    terminations: Batch[Mutation[pb.VmMutation], bool] = field(init=False)
    reboots: Batch[Mutation[pb.VmMutation], Vm] = field(init=False)
    rebuilds: Batch[Mutation[Rebuild], Vm] = field(init=False)
    consoles: Batch[ConsoleWish, str] = field(init=False)


class Iaas:
    """A client of all iaas services, by provider."""

    def __init__(
        self, channels: Sequence[grpc.aio.Channel], *, clock: Clock, tokens: Tokens
    ) -> None:
        self._stubs = [IaasServiceStub(channel) for channel in channels]
        self._clock = clock
        self._tokens = tokens
        self._providers: dict[str, _Provider] = {}
        self._default = ""
        self._discoveries: Batch[None, None] = Batch(self._discover, clock=clock)
        self.suite_id = ""

    async def discover(self) -> list[str]:
        """Ask every service which providers it has; the names.

        Raises when one of them does not answer; the providers of the others are known all the same.
        """
        await self._discoveries.ask(None)
        return list(self._providers)

    async def cloud(self, name: str) -> tuple[str, Cloud]:
        """The provider of that name, or the default for "", and what it promises.

        The default is the first of the first service, and of no other while that one is away.
        """
        if (name or self._default) not in self._providers:
            try:
                await self.discover()
            except ShepherdError:
                if (name or self._default) not in self._providers:
                    raise
        name = name or self._default
        if name not in self._providers:
            known = ", ".join(self._providers) or "none"
            raise NotFound(f"no iaas service has a provider {name!r}; there are: {known}")
        return name, self._providers[name].cloud

    async def list_vms(self, provider: str, preset: PresetName) -> Listing:
        """The VMs of a preset, from one listing shared with others that ask now."""
        return await self._providers[provider].listings.ask(preset)

    async def get_vm(self, provider: str, preset: PresetName, vm_id: VmId) -> Vm | None:
        """One VM read by id; None only when it is gone, or somebody took the marker off it."""
        return await self._providers[provider].readings.ask(Wanted(preset, vm_id))

    async def create(self, provider: str, create: pb.VmCreate, *, deadline: timedelta) -> Vm:
        """Make a VM.  OutcomeUnknown when it may have been made."""
        ends = self._clock.elapsed() + deadline
        return await self._providers[provider].creates.ask(Mutation(create, ends))

    async def terminate(
        self, provider: str, mutation: pb.VmMutation, *, deadline: timedelta
    ) -> bool:
        """Destroy a VM through the gates; False when it was gone already.

        OutcomeUnknown when it may be going.
        """
        ends = self._clock.elapsed() + deadline
        return await self._providers[provider].terminations.ask(Mutation(mutation, ends))

    async def reboot(self, provider: str, mutation: pb.VmMutation, *, deadline: timedelta) -> Vm:
        """Restart a VM through the gates.  OutcomeUnknown when it may have been restarted."""
        ends = self._clock.elapsed() + deadline
        return await self._providers[provider].reboots.ask(Mutation(mutation, ends))

    async def rebuild(self, provider: str, rebuild: Rebuild, *, deadline: timedelta) -> Vm:
        """Make a VM anew in its place, through the gates.

        OutcomeUnknown when that may have happened.
        """
        ends = self._clock.elapsed() + deadline
        return await self._providers[provider].rebuilds.ask(Mutation(rebuild, ends))

    async def console(self, provider: str, preset: PresetName, vm_id: VmId, lines: int) -> str:
        """The last lines of a VM's console; "" when there are none or they cannot be read.

        Never raises, and never waits for long: nothing hangs on it.
        """
        try:
            return await self._providers[provider].consoles.ask(ConsoleWish(preset, vm_id, lines))
        except ShepherdError:
            return ""

    def watched(self) -> list[str]:
        """Providers that tell of changes."""
        return [name for name, provider in self._providers.items() if provider.has_events]

    def watch(self, provider: str) -> AsyncGenerator[pb.WatchVmsResponse, None]:
        """Changes of a provider's VMs, as hints."""
        stub = self._providers[provider].stub
        return dial.listen(stub.WatchVms, pb.WatchVmsRequest(provider=provider))

    async def _discover(self, askers: Sequence[None]) -> Sequence[None]:
        asked = (self._learn(stub, is_first=place == 0) for place, stub in enumerate(self._stubs))
        for error in await asyncio.gather(*asked, return_exceptions=True):
            if error is not None:
                raise error
        return askers

    async def _learn(self, stub: IaasServiceStub, *, is_first: bool) -> None:
        request = pb.ListProvidersRequest()
        answer = await dial.ask(stub.ListProviders, request, deadline=DISCOVER_DEADLINE)
        self.suite_id = self.suite_id or answer.suite_id
        if is_first and answer.providers:
            self._default = answer.providers[0].name
        for message in answer.providers:
            known = self._providers.get(message.name)
            if known is None:
                self._providers[message.name] = self._provider(stub, message)
            elif known.stub is stub:
                known.cloud, known.has_events = _promises(message)

    def _provider(self, stub: IaasServiceStub, message: vm_pb2.Provider) -> _Provider:
        cloud, has_events = _promises(message)
        provider = _Provider(stub=stub, cloud=cloud, has_events=has_events)
        calls = Calls(stub, message.name, self._tokens, self._clock)
        provider.listings = Batch(
            calls.list, clock=self._clock, limit=100_000, moment=LISTING_MOMENT
        )
        provider.readings = Batch(calls.get, clock=self._clock)
        provider.creates = Batch(calls.create, clock=self._clock, limit=200, weigh=weight)
        provider.terminations = Batch(calls.terminate, clock=self._clock, limit=200)
        provider.reboots = Batch(calls.reboot, clock=self._clock, limit=200)
        provider.rebuilds = Batch(calls.rebuild, clock=self._clock, limit=200)
        provider.consoles = Batch(calls.console, clock=self._clock, limit=CONSOLES_PER_CALL)
        return provider


def _promises(message: vm_pb2.Provider) -> tuple[Cloud, bool]:
    """What a provider promises and can do, and whether it tells of changes."""
    traits = set(message.traits)
    cloud = Cloud(
        idempotent=vm_pb2.PROVIDER_TRAIT_IDEMPOTENT_CREATE in traits,
        horizon=stamps.from_duration(message.unknown_outcome_horizon),
        methods=frozenset(_METHODS[trait] for trait in traits if trait in _METHODS),
        has_console=vm_pb2.PROVIDER_TRAIT_CONSOLE in traits,
    )
    return cloud, vm_pb2.PROVIDER_TRAIT_EVENTS in traits
