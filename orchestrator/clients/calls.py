"""The calls to one provider of an iaas service, each for many presets and VMs.

A mutation whose call as a whole failed has an unknown outcome: it may have been delivered, unless
the service did not let it in. Used by `iaas`, which gathers what many ask for within a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

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
    Unsupported,
)

from ..model import PresetName, RequestId, Vm, VmId, VmState

LIST_DEADLINE = timedelta(seconds=60)
# What a console is worth waiting for: whoever asks has more urgent things to do.
CONSOLE_DEADLINE = timedelta(seconds=2.5)
PAGE_SIZE = 2000
# What a call is told that was not let in; one that is sent once was surely not begun then.
_NOT_LET_IN = {"TOO_MANY_AT_ONCE", "DEADLINE_TOO_SHORT"}

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
Message = TypeVar("Message")
Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Listing:
    """VMs of one preset, and whether any may be missing."""

    vms: tuple[Vm, ...]
    complete: bool
    incomplete_reason: str = ""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A VM to be made anew in its place, of what, and the hash that it bears from then on."""

    mutation: pb.VmMutation
    spec: vm_pb2.VmSpec
    spec_hash: str


@dataclass(frozen=True, slots=True)
class Mutation(Generic[Message]):
    """What is to be done to one VM, and when the lock that it needs may end, by the elapsed
    clock.
    """

    message: Message
    ends: timedelta


@dataclass(frozen=True, slots=True)
class Wanted:
    """A VM to be read, and the preset that its marker must name."""

    preset: PresetName
    vm_id: VmId


@dataclass(frozen=True, slots=True)
class ConsoleWish:
    """The last lines of a VM's console, if its marker names this preset."""

    preset: PresetName
    vm_id: VmId
    lines: int


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls to one provider, each for many presets."""

    stub: IaasServiceStub
    provider: str
    tokens: Tokens
    clock: Clock
    # What the last listing showed: a VM that has not changed is not read anew.
    listed: dict[str, tuple[vm_pb2.Vm, Vm]] = field(default_factory=dict)

    async def list(self, presets: Sequence[PresetName]) -> Sequence[Listing | ShepherdError]:
        """One listing; each preset's share of it."""
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
        """VMs by id; None for one that is gone, or not of the preset."""
        request = pb.GetVmsRequest(provider=self.provider, vm_ids=[each.vm_id for each in wanted])
        answer = await dial.ask(self.stub.GetVms, request, deadline=LIST_DEADLINE)
        pairs = zip(answer.results, wanted, strict=False)
        return [_reading(result, each.preset) for result, each in pairs]

    async def console(self, wishes: Sequence[ConsoleWish]) -> Sequence[str | ShepherdError]:
        """Consoles by id, the newest lines; "" where there is nothing to show."""
        request = pb.GetVmsRequest(
            provider=self.provider,
            vm_ids=[wish.vm_id for wish in wishes],
            console_lines=max(wish.lines for wish in wishes),
        )
        answer = await dial.ask(self.stub.GetVms, request, deadline=CONSOLE_DEADLINE)
        return [_console(*pair) for pair in zip(answer.results, wishes, strict=False)]

    async def create(
        self, mutations: Sequence[Mutation[pb.VmCreate]]
    ) -> Sequence[Vm | ShepherdError]:
        """VMs as they were made."""
        creates = [each.message for each in mutations]
        request = pb.CreateVmsRequest(provider=self.provider, creates=creates)
        answer = await self._mutate(self.stub.CreateVms, request, mutations, what="create")
        return [_made(result) for result in answer.results]

    async def terminate(
        self, mutations: Sequence[Mutation[pb.VmMutation]]
    ) -> Sequence[bool | ShepherdError]:
        """Whether each VM was still there."""
        terminations = [each.message for each in mutations]
        request = pb.TerminateVmsRequest(provider=self.provider, terminations=terminations)
        answer = await self._mutate(
            self.stub.TerminateVms, request, mutations, what="termination", is_repeated=True
        )
        return [status.from_proto(result.status) or result.existed for result in answer.results]

    async def reboot(
        self, mutations: Sequence[Mutation[pb.VmMutation]]
    ) -> Sequence[Vm | ShepherdError]:
        """VMs as they are once their restart was accepted."""
        reboots = [each.message for each in mutations]
        request = pb.RebootVmsRequest(provider=self.provider, reboots=reboots)
        answer = await self._mutate(self.stub.RebootVms, request, mutations, what="reboot")
        return [_made(result) for result in answer.results]

    async def rebuild(self, mutations: Sequence[Mutation[Rebuild]]) -> Sequence[Vm | ShepherdError]:
        """VMs as they are once their rebuild was accepted: a call for each spec, side by side."""
        groups: dict[tuple[str, bytes], list[int]] = {}
        for place, each in enumerate(mutations):
            groups.setdefault(_made_of(each.message), []).append(place)
        calls = (self._rebuild([mutations[at] for at in places]) for places in groups.values())
        found = dict[int, Vm | ShepherdError]()
        for places, answers in zip(groups.values(), await asyncio.gather(*calls), strict=True):
            found |= zip(places, answers, strict=False)
        return [found[place] for place in sorted(found)]

    async def _rebuild(
        self, mutations: Sequence[Mutation[Rebuild]]
    ) -> Sequence[Vm | ShepherdError]:
        rebuilds = [each.message for each in mutations]
        request = pb.RebuildVmsRequest(
            provider=self.provider,
            rebuilds=[each.mutation for each in rebuilds],
            spec=rebuilds[0].spec,
            spec_hash=rebuilds[0].spec_hash,
        )
        try:
            answer = await self._mutate(self.stub.RebuildVms, request, mutations, what="rebuild")
        except ShepherdError as e:
            # What one spec meets says nothing about the others.
            return [e] * len(mutations)
        return [_made(result) for result in answer.results]

    async def _mutate(
        self,
        method: Callable[..., grpc.aio.UnaryUnaryCall[Request, Response]],
        request: Request,
        mutations: Sequence[Mutation[Message]],
        *,
        what: str,
        is_repeated: bool = False,
    ) -> Response:
        """The answer; of what the channel repeats, a refusal may be of the last time alone."""
        try:
            return await dial.ask(method, request, deadline=self._left(mutations))
        except (BadRequest, Unsupported):
            raise
        except ShepherdError as e:
            if e.reason in _NOT_LET_IN and not is_repeated:
                raise
            message = f"the {what} may have been carried out: {e.message}"
            raise OutcomeUnknown(message, provider=self.provider) from e

    def _left(self, mutations: Iterable[Mutation[Message]]) -> timedelta:
        """What is left of the shortest authority by now: gathering took time, too."""
        left = min(each.ends for each in mutations) - self.clock.elapsed()
        return max(left, timedelta(0))


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


def weight(create: Mutation[pb.VmCreate]) -> int:
    """Bytes that it adds to a call that it shares with others."""
    return create.message.ByteSize()


def _made_of(rebuild: Rebuild) -> tuple[str, bytes]:
    """What tells apart the rebuilds that cannot share a call."""
    return rebuild.spec_hash, rebuild.spec.SerializeToString(deterministic=True)


def _made(result: pb.VmResult) -> Vm | ShepherdError:
    return status.from_proto(result.status) or vm(result.vm)


def _console(result: pb.VmResult, wish: ConsoleWish) -> str:
    # Nobody else's console is shown: it may hold anything.
    if result.vm.marker.preset != wish.preset:
        return ""
    return "\n".join(result.console.splitlines()[-wish.lines :])


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
