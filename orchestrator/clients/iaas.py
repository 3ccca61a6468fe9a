"""The iaas services: listings, creates and terminations, many presets a call.

One listing a provider serves every preset that asks within a moment. A create whose call as a whole
failed has an unknown outcome: it may have been delivered. Called by `observe` and `act`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import grpc

from vmshepherd.iaas.v1 import iaas_service_pb2 as pb
from vmshepherd.iaas.v1 import vm_pb2
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd_kit import dial, stamps, status
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    OutcomeUnknown,
    ShepherdError,
    StaleFencingToken,
)

from ..model import Cloud, PresetName, RequestId, Vm, VmId, VmState
from .batch import Batch

LIST_DEADLINE = timedelta(seconds=60)
PAGE_SIZE = 2000
# A listing is the dearest call: stragglers are worth waiting for.
LISTING_MOMENT = timedelta(milliseconds=20)
# Never sent again by the channel: a repeat may make a second VM.
ONCE = (("vmshepherd.iaas.v1.IaasService", "CreateVms"),)

_STATES = {
    vm_pb2.VM_STATE_PENDING: VmState.PENDING,
    vm_pb2.VM_STATE_RUNNING: VmState.RUNNING,
    vm_pb2.VM_STATE_STOPPED: VmState.STOPPED,
    vm_pb2.VM_STATE_TRANSITIONING: VmState.TRANSITIONING,
    vm_pb2.VM_STATE_DELETING: VmState.DELETING,
    vm_pb2.VM_STATE_TERMINATED: VmState.TERMINATED,
    vm_pb2.VM_STATE_ERROR: VmState.ERROR,
}

Tokens = Callable[[], Mapping[PresetName, int]]


@dataclass(frozen=True, slots=True)
class Listing:
    """VMs of one preset, and whether any may be missing."""

    vms: tuple[Vm, ...]
    complete: bool
    incomplete_reason: str = ""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One create or termination, with how long its lock surely lasts."""

    message: pb.VmCreate | pb.VmMutation
    deadline: timedelta


@dataclass(slots=True)
class _Provider:
    """One provider, and the calls under way to it."""

    stub: IaasServiceStub
    cloud: Cloud
    has_events: bool
    listings: Batch[PresetName, Listing] = field(init=False)
    readings: Batch[VmId, Vm | None] = field(init=False)
    creates: Batch[Mutation, Vm] = field(init=False)
    terminations: Batch[Mutation, bool] = field(init=False)


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
        self.suite_id = ""

    async def discover(self) -> list[str]:
        """Ask every service which providers it has; the names."""
        for stub in self._stubs:
            answer = await dial.ask(stub.ListProviders, pb.ListProvidersRequest())
            self.suite_id = self.suite_id or answer.suite_id
            for message in answer.providers:
                self._default = self._default or message.name
                if message.name not in self._providers:
                    self._providers[message.name] = self._provider(stub, message)
        return list(self._providers)

    async def cloud(self, name: str) -> tuple[str, Cloud]:
        """The provider of that name, or the default for "", and what it promises."""
        if not self._providers or (name and name not in self._providers):
            await self.discover()
        name = name or self._default
        if name not in self._providers:
            known = ", ".join(self._providers) or "none"
            raise NotFound(f"no iaas service has a provider {name!r}; there are: {known}")
        return name, self._providers[name].cloud

    async def list_vms(self, provider: str, preset: PresetName) -> Listing:
        """The VMs of a preset, from one listing shared with others that ask now."""
        return await self._providers[provider].listings.ask(preset)

    async def get_vm(self, provider: str, vm_id: VmId) -> Vm | None:
        """One VM read by id; None only when the cloud says that it is gone."""
        return await self._providers[provider].readings.ask(vm_id)

    async def create(self, provider: str, create: pb.VmCreate, *, deadline: timedelta) -> Vm:
        """Make a VM.  OutcomeUnknown when it may have been made."""
        return await self._providers[provider].creates.ask(Mutation(create, deadline))

    async def terminate(
        self, provider: str, mutation: pb.VmMutation, *, deadline: timedelta
    ) -> bool:
        """Destroy a VM through the gates; False when it was gone already."""
        return await self._providers[provider].terminations.ask(Mutation(mutation, deadline))

    def watched(self) -> list[str]:
        """Providers that tell of changes."""
        return [name for name, provider in self._providers.items() if provider.has_events]

    def watch(self, provider: str) -> AsyncGenerator[pb.WatchVmsResponse, None]:
        """Changes of a provider's VMs, as hints."""
        stub = self._providers[provider].stub
        return dial.listen(stub.WatchVms, pb.WatchVmsRequest(provider=provider))

    async def floors(self, provider: str) -> Mapping[str, int]:
        """The highest token that the VMs of each preset bear."""
        stub = self._providers[provider].stub
        return (await _first_page(stub, provider, {})).token_floors

    def _provider(self, stub: IaasServiceStub, message: vm_pb2.Provider) -> _Provider:
        traits = set(message.traits)
        cloud = Cloud(
            idempotent=vm_pb2.PROVIDER_TRAIT_IDEMPOTENT_CREATE in traits,
            horizon=stamps.from_duration(message.unknown_outcome_horizon),
        )
        events = vm_pb2.PROVIDER_TRAIT_EVENTS in traits
        provider = _Provider(stub=stub, cloud=cloud, has_events=events)
        calls = _Calls(stub, message.name, self._tokens)
        provider.listings = Batch(
            calls.list, clock=self._clock, limit=100_000, moment=LISTING_MOMENT
        )
        provider.readings = Batch(calls.get, clock=self._clock)
        provider.creates = Batch(calls.create, clock=self._clock, limit=200)
        provider.terminations = Batch(calls.terminate, clock=self._clock, limit=200)
        return provider


@dataclass(frozen=True, slots=True)
class _Calls:
    """The calls to one provider, each for many presets."""

    stub: IaasServiceStub
    provider: str
    tokens: Tokens

    async def list(self, presets: Sequence[PresetName]) -> Sequence[Listing | ShepherdError]:
        held = dict(self.tokens())
        stale: dict[PresetName, StaleFencingToken] = {}
        try:
            first = await _first_page(self.stub, self.provider, held)
        except StaleFencingToken as e:
            # Somebody newer holds some of them; the others are served all the same.
            stale = _stale(e)
            held = {name: token for name, token in held.items() if name not in stale}
            first = await _first_page(self.stub, self.provider, held)
        wanted = set(presets)
        vms: dict[PresetName, list[Vm]] = {name: [] for name in wanted}
        page = first
        while True:
            for message in page.vms:
                name = PresetName(message.marker.preset)
                if name in wanted:
                    vms[name].append(vm(message))
            if not page.next_page_token:
                break
            page = await dial.ask(
                self.stub.ListVms,
                pb.ListVmsRequest(
                    provider=self.provider, page_size=PAGE_SIZE, page_token=page.next_page_token
                ),
                deadline=LIST_DEADLINE,
            )
        return [
            stale.get(name) or Listing(tuple(vms[name]), first.complete, first.incomplete_reason)
            for name in presets
        ]

    async def get(self, vm_ids: Sequence[VmId]) -> Sequence[Vm | ShepherdError | None]:
        request = pb.GetVmsRequest(provider=self.provider, vm_ids=vm_ids)
        answer = await dial.ask(self.stub.GetVms, request, deadline=LIST_DEADLINE)
        return [_reading(result) for result in answer.results]

    async def create(self, mutations: Sequence[Mutation]) -> Sequence[Vm | ShepherdError]:
        creates = [each.message for each in mutations if isinstance(each.message, pb.VmCreate)]
        request = pb.CreateVmsRequest(provider=self.provider, creates=creates)
        try:
            answer = await dial.ask(self.stub.CreateVms, request, deadline=_shortest(mutations))
        except BadRequest:
            raise
        except ShepherdError as e:
            message = f"the create may have been carried out: {e.message}"
            raise OutcomeUnknown(message, provider=self.provider) from e
        return [status.from_proto(result.status) or vm(result.vm) for result in answer.results]

    async def terminate(self, mutations: Sequence[Mutation]) -> Sequence[bool | ShepherdError]:
        ends = [each.message for each in mutations if isinstance(each.message, pb.VmMutation)]
        request = pb.TerminateVmsRequest(provider=self.provider, terminations=ends)
        answer = await dial.ask(self.stub.TerminateVms, request, deadline=_shortest(mutations))
        return [status.from_proto(result.status) or result.existed for result in answer.results]


async def _first_page(
    stub: IaasServiceStub, provider: str, held: Mapping[PresetName, int]
) -> pb.ListVmsResponse:
    tokens = [pb.PresetToken(preset=name, fencing_token=token) for name, token in held.items()]
    request = pb.ListVmsRequest(provider=provider, held=tokens, page_size=PAGE_SIZE)
    return await dial.ask(stub.ListVms, request, deadline=LIST_DEADLINE)


def _stale(error: StaleFencingToken) -> dict[PresetName, StaleFencingToken]:
    names = error.facts.get("presets", "").split(",")
    floors = error.facts.get("floors", "").split(",")
    return {
        PresetName(name): StaleFencingToken(
            f"preset {name} is held under the newer token {floor}", preset=name, floor=floor
        )
        for name, floor in zip(names, floors, strict=False)
        if name
    }


def _shortest(mutations: Iterable[Mutation]) -> timedelta:
    return min(each.deadline for each in mutations)


def _reading(result: pb.VmResult) -> Vm | ShepherdError | None:
    error = status.from_proto(result.status)
    if isinstance(error, NotFound):
        return None
    return error or vm(result.vm)


def vm(message: vm_pb2.Vm) -> Vm:
    """A VM; a state that this version does not know is UNKNOWN, and so is not touched."""
    marker = message.marker
    return Vm(
        vm_id=VmId(message.vm_id),
        state=_STATES.get(message.state, VmState.UNKNOWN),
        name=message.name,
        provider=message.provider,
        cloud_state=message.cloud_state,
        fault=message.fault,
        addresses=tuple(address.ip for address in message.addresses),
        image=message.image,
        flavor=message.flavor,
        zone=message.zone,
        created=stamps.from_timestamp(message.create_time),
        shutdown_at=stamps.from_timestamp(message.timed_shutdown_time),
        protected=message.protected,
        request_id=RequestId(marker.request_id),
        fencing_token=marker.fencing_token,
        spec_hash=marker.spec_hash,
    )
