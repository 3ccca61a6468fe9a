"""The iaas services: listings, creates and terminations, many presets a call.

One listing a provider serves every preset that asks within a moment. A create whose call as a whole
failed has an unknown outcome: it may have been delivered. Called by `observe` and `act`.
"""

from __future__ import annotations

import asyncio
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
DISCOVER_DEADLINE = timedelta(seconds=3)
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
    """One create or termination, and when the lock that it needs may end, by the elapsed clock."""

    message: pb.VmCreate | pb.VmMutation
    ends: timedelta


@dataclass(frozen=True, slots=True)
class Wanted:
    """A VM to be read, and the preset that its marker must name."""

    preset: PresetName
    vm_id: VmId


@dataclass(slots=True)
class _Provider:
    """One provider, and the calls under way to it."""

    stub: IaasServiceStub
    cloud: Cloud
    has_events: bool
    listings: Batch[PresetName, Listing] = field(init=False)
    readings: Batch[Wanted, Vm | None] = field(init=False)
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
        calls = _Calls(stub, message.name, self._tokens, self._clock)
        provider.listings = Batch(
            calls.list, clock=self._clock, limit=100_000, moment=LISTING_MOMENT
        )
        provider.readings = Batch(calls.get, clock=self._clock)
        provider.creates = Batch(calls.create, clock=self._clock, limit=200, weigh=_weight)
        provider.terminations = Batch(calls.terminate, clock=self._clock, limit=200)
        return provider


@dataclass(frozen=True, slots=True)
class _Calls:
    """The calls to one provider, each for many presets."""

    stub: IaasServiceStub
    provider: str
    tokens: Tokens
    clock: Clock
    # What the last listing showed: a VM that has not changed is not read anew.
    listed: dict[str, tuple[vm_pb2.Vm, Vm]] = field(default_factory=dict)

    async def list(self, presets: Sequence[PresetName]) -> Sequence[Listing | ShepherdError]:
        first, stale = await self._first_page()
        wanted = set(presets)
        vms: dict[PresetName, list[Vm]] = {name: [] for name in wanted}
        listed: dict[str, tuple[vm_pb2.Vm, Vm]] = {}
        page = first
        while True:
            for message in page.vms:
                name = PresetName(message.marker.preset)
                if name in wanted:
                    listed[message.vm_id] = known = self._known(message)
                    vms[name].append(known[1])
            if not page.next_page_token:
                break
            page = await dial.ask(
                self.stub.ListVms,
                pb.ListVmsRequest(
                    provider=self.provider, page_size=PAGE_SIZE, page_token=page.next_page_token
                ),
                deadline=LIST_DEADLINE,
            )
        self.listed.clear()
        self.listed.update(listed)
        return [
            stale.get(name) or Listing(tuple(vms[name]), first.complete, first.incomplete_reason)
            for name in presets
        ]

    def _known(self, message: vm_pb2.Vm) -> tuple[vm_pb2.Vm, Vm]:
        known = self.listed.get(message.vm_id)
        if known is not None and known[0] == message:
            return known
        # A copy: the message itself would keep its whole page in memory.
        copy = vm_pb2.Vm()
        copy.CopyFrom(message)
        return copy, vm(message)

    async def _first_page(
        self,
    ) -> tuple[pb.ListVmsResponse, Mapping[PresetName, StaleFencingToken]]:
        """Presets that somebody newer holds are left out; the others are served all the same."""
        held = dict(self.tokens())
        stale: dict[PresetName, StaleFencingToken] = {}
        while True:
            tokens = [
                pb.PresetToken(preset=name, fencing_token=token)
                for name, token in held.items()
                if name not in stale
            ]
            request = pb.ListVmsRequest(provider=self.provider, held=tokens, page_size=PAGE_SIZE)
            try:
                page = await dial.ask(self.stub.ListVms, request, deadline=LIST_DEADLINE)
            except StaleFencingToken as e:
                # An error has room for some names only; without these it tells the next ones.
                more = _stale(e).items()
                fresh = {name: each for name, each in more if name in held and name not in stale}
                if not fresh:
                    raise
                stale |= fresh
            else:
                return page, stale

    async def get(self, wanted: Sequence[Wanted]) -> Sequence[Vm | ShepherdError | None]:
        request = pb.GetVmsRequest(provider=self.provider, vm_ids=[each.vm_id for each in wanted])
        answer = await dial.ask(self.stub.GetVms, request, deadline=LIST_DEADLINE)
        pairs = zip(answer.results, wanted, strict=False)
        return [_reading(result, each.preset) for result, each in pairs]

    async def create(self, mutations: Sequence[Mutation]) -> Sequence[Vm | ShepherdError]:
        creates = [each.message for each in mutations if isinstance(each.message, pb.VmCreate)]
        request = pb.CreateVmsRequest(provider=self.provider, creates=creates)
        try:
            deadline = self._left(mutations)
            answer = await dial.ask(self.stub.CreateVms, request, deadline=deadline)
        except BadRequest:
            raise
        except ShepherdError as e:
            message = f"the create may have been carried out: {e.message}"
            raise OutcomeUnknown(message, provider=self.provider) from e
        return [status.from_proto(result.status) or vm(result.vm) for result in answer.results]

    async def terminate(self, mutations: Sequence[Mutation]) -> Sequence[bool | ShepherdError]:
        ends = [each.message for each in mutations if isinstance(each.message, pb.VmMutation)]
        request = pb.TerminateVmsRequest(provider=self.provider, terminations=ends)
        try:
            deadline = self._left(mutations)
            answer = await dial.ask(self.stub.TerminateVms, request, deadline=deadline)
        except BadRequest:
            raise
        except ShepherdError as e:
            message = f"the termination may have been carried out: {e.message}"
            raise OutcomeUnknown(message, provider=self.provider) from e
        return [status.from_proto(result.status) or result.existed for result in answer.results]

    def _left(self, mutations: Iterable[Mutation]) -> timedelta:
        """What is left of the shortest authority by now: gathering took time, too."""
        left = min(each.ends for each in mutations) - self.clock.elapsed()
        return max(left, timedelta(0))


def _promises(message: vm_pb2.Provider) -> tuple[Cloud, bool]:
    """What a provider promises about creates, and whether it tells of changes."""
    traits = set(message.traits)
    cloud = Cloud(
        idempotent=vm_pb2.PROVIDER_TRAIT_IDEMPOTENT_CREATE in traits,
        horizon=stamps.from_duration(message.unknown_outcome_horizon),
    )
    return cloud, vm_pb2.PROVIDER_TRAIT_EVENTS in traits


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


def _weight(mutation: Mutation) -> int:
    return mutation.message.ByteSize()


def _reading(result: pb.VmResult, preset: PresetName) -> Vm | ShepherdError | None:
    error = status.from_proto(result.status)
    if isinstance(error, NotFound):
        return None
    if error is not None:
        return error
    # Read by id, it need not be ours any more: a person may have taken it out of the group.
    return vm(result.vm) if result.vm.marker.preset == preset else None


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
