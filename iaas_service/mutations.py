"""Making and destroying VMs: the one way from a request to a driver's mutating call.

The servicer asks; the gates say yes or no; the driver does.  A call that was sent to the driver is
never cut off by its caller's going away, and never outlives its caller's deadline.  Items of one
request run side by side, and none fails another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Self, TypeVar

from vmshepherd_kit import log
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.errors import (
    NotFound,
    OutcomeUnknown,
    ShepherdError,
    Unavailable,
)
from vmshepherd_kit.tasks import hear

from .creates import Creates
from .deadlines import Deadline
from .domain import Deed, Mutation, Order, Spec, Vm
from .gates import Gates
from .providers import Provider
from .tokens import TokenFloors

T = TypeVar("T")

_log = log.get("iaas")


class Mutations:
    """All mutations of one process; close it when no call comes any more."""

    def __init__(self, *, gates: Gates, tokens: TokenFloors, clock: Clock, chance: Chance) -> None:
        self._gates = gates
        self._tokens = tokens
        self._clock = clock
        self._chance = chance
        self._sent: set[asyncio.Task[Any]] = set()
        self._creates = Creates()

    async def close(self) -> None:
        """Wait for what was sent; each ends by its own deadline."""
        await asyncio.gather(*self._sent, return_exceptions=True)

    async def create(
        self, provider: Provider, orders: Iterable[Order | ShepherdError], deadline: Deadline
    ) -> Sequence[Vm | ShepherdError]:
        """Make VMs; an order that is an error stays one."""
        made = await self._side_by_side(self._create(provider, o, deadline) for o in orders)
        failed = [outcome.reason for outcome in made if isinstance(outcome, ShepherdError)]
        _log.info(
            "vms created",
            provider=provider.name,
            made=len(made) - len(failed),
            failed=len(failed),
            reasons=sorted(set(failed)),
        )
        return made

    async def terminate(
        self, provider: Provider, mutations: Iterable[Mutation], deadline: Deadline
    ) -> Sequence[bool | ShepherdError]:
        """Destroy VMs; False for what was gone already."""
        ended = await self._side_by_side(self._terminate(provider, m, deadline) for m in mutations)
        _tell_refused("terminations not done", provider, ended)
        return ended

    async def reboot(
        self, provider: Provider, mutations: Iterable[Mutation], deadline: Deadline
    ) -> Sequence[Vm | ShepherdError]:
        """Restart VMs."""
        reboot = _Renewal(deed=Deed.REBOOT, event="vm rebooted", call=provider.cloud.reboot)
        rebooted = await self._side_by_side(
            self._renew(provider, m, deadline, reboot) for m in mutations
        )
        _tell_refused("reboots not done", provider, rebooted)
        return rebooted

    async def rebuild(
        self,
        provider: Provider,
        mutations: Iterable[Mutation],
        deadline: Deadline,
        *,
        spec: Spec,
        spec_hash: str,
    ) -> Sequence[Vm | ShepherdError]:
        """Make VMs anew in their places; their markers tell of this spec then."""
        call = partial(provider.cloud.rebuild, spec=spec, spec_hash=spec_hash)
        rebuild = _Renewal(deed=Deed.REBUILD, event="vm rebuilt", call=call)
        rebuilt = await self._side_by_side(
            self._renew(provider, m, deadline, rebuild) for m in mutations
        )
        _tell_refused("rebuilds not done", provider, rebuilt)
        return rebuilt

    async def _create(
        self, provider: Provider, order: Order | ShepherdError, deadline: Deadline
    ) -> Vm:
        if isinstance(order, ShepherdError):
            raise order
        preset, token = order.marker.preset, order.marker.fencing_token
        self._tokens.admit(preset, token)
        async with _Slot(provider, None) as slot:
            slot.require(deadline)
            vm = await self._creates.earlier(provider, order, self._clock.elapsed())
            if vm is None:
                # The turn and the look took time: see clock and token again, directly before.
                slot.require(deadline)
                self._tokens.require(preset, token)
                task = self._send(provider.cloud.create(order), deadline, slot)
                self._creates.add(provider, order, task, self._clock.elapsed())
                vm = await asyncio.shield(task)
        _log.debug(
            "vm created",
            provider=provider.name,
            preset=preset,
            vm_id=vm.vm_id,
            request_id=order.marker.request_id,
        )
        return vm

    async def _terminate(self, provider: Provider, mutation: Mutation, deadline: Deadline) -> bool:
        self._gates.pass_authority(mutation)
        async with _Slot(provider, Deed.TERMINATE) as slot:
            vm = await self._through_gates(provider, mutation, deadline, slot, deed=Deed.TERMINATE)
            if vm is None:
                return False
            task = self._send(provider.cloud.terminate(vm), deadline, slot)
            existed = await asyncio.shield(task)
        self._record("vm terminated", provider, mutation)
        return existed

    async def _renew(
        self, provider: Provider, mutation: Mutation, deadline: Deadline, renewal: _Renewal
    ) -> Vm:
        self._gates.pass_authority(mutation)
        async with _Slot(provider, renewal.deed) as slot:
            vm = await self._through_gates(provider, mutation, deadline, slot, deed=renewal.deed)
            if vm is None:
                raise NotFound(f"VM {mutation.vm_id} is gone", vm_id=mutation.vm_id)
            task = self._send(renewal.call(vm), deadline, slot)
            renewed = await asyncio.shield(task)
        self._record(renewal.event, provider, mutation)
        return renewed

    async def _through_gates(
        self, provider: Provider, mutation: Mutation, deadline: Deadline, slot: _Slot, *, deed: Deed
    ) -> Vm | None:
        """The VM as it is now, once all gates let it pass; None when it is gone."""
        slot.require(deadline)
        vm = await _read(provider, mutation, deadline)
        if vm is None:
            return None
        self._gates.pass_identity(mutation, vm)
        self._gates.pass_protection(mutation, vm)
        # The turn and the reading took time: look at clock and token again, directly before acting.
        slot.require(deadline)
        self._tokens.require(mutation.preset, mutation.fencing_token)
        now = self._clock.elapsed()
        self._gates.pass_limits(provider.name, mutation, vm, now, deed=deed)
        return vm

    def _send(
        self, call: Coroutine[Any, Any, T], deadline: Deadline, slot: _Slot
    ) -> asyncio.Task[T]:
        task = asyncio.create_task(self._timed(_bounded(call, deadline.left), slot))
        self._sent.add(task)
        task.add_done_callback(self._sent.discard)
        # Its caller may be gone by then.
        task.add_done_callback(hear)
        slot.hand_over(task)
        return task

    async def _timed(self, call: Coroutine[Any, Any, T], slot: _Slot) -> T:
        begun = self._clock.elapsed()
        try:
            result = await call
        except OutcomeUnknown:
            slot.took(begun, self._clock.elapsed(), is_whole=False)
            raise
        slot.took(begun, self._clock.elapsed())
        return result

    async def _side_by_side(
        self, works: Iterable[Coroutine[Any, Any, T]]
    ) -> Sequence[T | ShepherdError]:
        outcomes = await asyncio.gather(*works, return_exceptions=True)
        return [self._outcome(outcome) for outcome in outcomes]

    def _outcome(self, outcome: T | BaseException) -> T | ShepherdError:
        if not isinstance(outcome, BaseException) or isinstance(outcome, ShepherdError):
            return outcome
        incident = self._chance.uuid()
        _log.error("driver failed by a bug", incident=incident, exc_info=outcome)
        return OutcomeUnknown(
            f"the driver failed; the server's log has it as incident {incident}", incident=incident
        )

    def _record(self, event: str, provider: Provider, mutation: Mutation) -> None:
        _log.info(
            event,
            provider=provider.name,
            preset=mutation.preset,
            vm_id=mutation.vm_id,
            reason=mutation.reason.name if mutation.reason else "",
            evidence=mutation.evidence,
            force=mutation.force,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Renewal:
    """How a VM is restarted or made anew."""

    deed: Deed
    event: str
    call: Callable[[Vm], Coroutine[Any, Any, Vm]]


class _Slot:
    """One of the calls that a provider is asked at a time, for a deed; None is to make a VM.

    Handed over, it is free when the task ends, however early its caller went away.
    """

    def __init__(self, provider: Provider, deed: Deed | None) -> None:
        self._deed = deed
        self._pace = provider.pace
        self._slots = provider.slots
        self._is_handed_over = False

    def require(self, deadline: Deadline) -> None:
        """Refuse what the provider would hardly answer in time."""
        needed = self._pace.needed(self._deed, deadline.granted, now=deadline.now)
        deadline.require(needed)

    def took(self, begun: timedelta, ended: timedelta, *, is_whole: bool = True) -> None:
        """Learn how long the provider takes; not whole, the call was cut off."""
        self._pace.took(self._deed, ended - begun, now=ended, is_whole=is_whole)

    async def __aenter__(self) -> Self:
        await self._slots.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_handed_over:
            self._slots.release()

    def hand_over(self, task: asyncio.Task[Any]) -> None:
        self._is_handed_over = True
        task.add_done_callback(lambda _: self._slots.release())


def _tell_refused(event: str, provider: Provider, outcomes: Iterable[object]) -> None:
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, ShepherdError)]
    if reasons:
        _log.info(event, provider=provider.name, number=len(reasons), reasons=sorted(set(reasons)))


async def _read(provider: Provider, mutation: Mutation, deadline: Deadline) -> Vm | None:
    try:
        async with asyncio.timeout(deadline.left.total_seconds()):
            [found] = await provider.cloud.get([mutation.vm_id])
    except TimeoutError as e:
        raise Unavailable("the cloud did not show the VM in time; nothing was done") from e
    if isinstance(found, NotFound):
        return None
    if isinstance(found, ShepherdError):
        raise found
    return found


async def _bounded(call: Coroutine[Any, Any, T], left: timedelta) -> T:
    try:
        async with asyncio.timeout(left.total_seconds()):
            return await call
    except TimeoutError as e:
        raise OutcomeUnknown(
            f"the cloud did not answer within {left.total_seconds():.1f} s; it may have done it"
        ) from e
