"""What acts: one step becomes one call, and its answer an outcome.

Called by `act`, which has told and stored before what is sent here. Nothing is sent once authority
has ended, and no call may outlast it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta

from vmshepherd.iaas.v1 import iaas_service_pb2 as pb
from vmshepherd.iaas.v1 import vm_pb2
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import (
    BadRequest,
    Denied,
    NotFound,
    OutcomeUnknown,
    SessionLost,
    ShepherdError,
    StaleFencingToken,
    Unsupported,
)
from vmshepherd_kit.stamps import to_timestamp_if

from .authority import Authority
from .clients.calls import Rebuild
from .clients.iaas import Iaas
from .clients.presets import Declared
from .config import LEAST_TIME
from .failures import CLASSES
from .journal import Journal
from .model import (
    Create,
    Fate,
    Intent,
    Method,
    Observation,
    Outcome,
    Placement,
    Plan,
    PresetName,
    Reason,
    Repair,
    Step,
    Terminate,
)

_REASONS = {
    Reason.DEAD: pb.MUTATION_REASON_DEAD,
    Reason.UNHEALTHY: pb.MUTATION_REASON_UNHEALTHY,
    Reason.BOOT_TIMEOUT: pb.MUTATION_REASON_BOOT_TIMEOUT,
    Reason.SURPLUS: pb.MUTATION_REASON_SURPLUS,
    Reason.TIMED_SHUTDOWN: pb.MUTATION_REASON_TIMED_SHUTDOWN,
    Reason.OPERATOR: pb.MUTATION_REASON_OPERATOR,
    Reason.OUTDATED: pb.MUTATION_REASON_OUTDATED,
    Reason.MAX_LIFETIME: pb.MUTATION_REASON_MAX_LIFETIME,
    Reason.STOPPED: pb.MUTATION_REASON_STOPPED,
    Reason.STUDY_OVER: pb.MUTATION_REASON_STUDY_OVER,
    Reason.PRESET_REMOVED: pb.MUTATION_REASON_PRESET_REMOVED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A plan, what it was made of, and all that its steps need to be carried out."""

    preset: PresetName
    declared: Declared
    provider: str
    fencing_token: int
    seen: Observation
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What acts: shared by all presets."""

    iaas: Iaas
    authority: Authority
    journal: Journal
    clock: Clock
    longest: timedelta

    def time_left(self) -> timedelta:
        """How long a mutation may last.  SessionLost when there is too little."""
        left = self.authority.remaining()
        if left < LEAST_TIME:
            raise SessionLost("the session may end before a mutation would")
        return min(left, self.longest)

    async def create(self, step: Create, order: Order) -> Outcome:
        """Make a VM.  SessionLost, StaleFencingToken; whatever else goes wrong is its outcome."""
        intent = step.intent
        message = pb.VmCreate(
            request_id=intent.request_id,
            preset=order.preset,
            fencing_token=order.fencing_token,
            name=intent.name,
            spec_hash=intent.spec_hash,
            spec=_placed(order.declared.vm_spec, intent),
        )
        try:
            vm = await self.iaas.create(order.provider, message, deadline=self.time_left())
        except ShepherdError as e:
            return _failed(step, e)
        return Outcome(step=step, fate=Fate.DONE, vm_id=vm.vm_id)

    async def terminate(self, step: Terminate, order: Order) -> Outcome:
        """Destroy a VM; errors as of `create`."""
        mutation = _mutation(step, order)
        deadline = self.time_left()
        return await _tried(step, self.iaas.terminate(order.provider, mutation, deadline=deadline))

    async def repair(self, step: Repair, order: Order) -> Outcome:
        """Restart a VM, or make it anew in its place; errors as of `create`."""
        mutation, deadline = _mutation(step, order), self.time_left()
        if step.method is Method.REBOOT:
            return await _tried(step, self.iaas.reboot(order.provider, mutation, deadline=deadline))
        rebuild = Rebuild(mutation, _rebuilt(order), order.seen.spec.spec_hash)
        return await _tried(step, self.iaas.rebuild(order.provider, rebuild, deadline=deadline))


def _mutation(step: Terminate | Repair, order: Order) -> pb.VmMutation:
    return pb.VmMutation(
        vm_id=step.vm.vm_id,
        preset=order.preset,
        fencing_token=order.fencing_token,
        create_time=to_timestamp_if(step.vm.created),
        reason=_REASONS[step.reason],
        evidence=step.evidence,
        force=isinstance(step, Terminate) and step.force,
    )


def _placed(declared: vm_pb2.VmSpec | None, intent: Intent) -> vm_pb2.VmSpec | None:
    """What is declared, with the image, flavor and zone that were chosen for this VM."""
    placement = intent.placement
    if declared is None or placement == Placement():
        return declared
    spec = vm_pb2.VmSpec()
    spec.CopyFrom(declared)
    spec.image = placement.image or spec.image
    spec.flavor = placement.flavor or spec.flavor
    spec.availability_zone = placement.zone or spec.availability_zone
    return spec


def _rebuilt(order: Order) -> vm_pb2.VmSpec:
    """What is declared; where there are several images, the one that the VM has."""
    spec = vm_pb2.VmSpec()
    if order.declared.vm_spec is not None:
        spec.CopyFrom(order.declared.vm_spec)
    if order.seen.spec.images:
        spec.image = ""
    return spec


async def _tried(step: Terminate | Repair, call: Awaitable[object]) -> Outcome:
    try:
        await call
    except ShepherdError as e:
        return _failed(step, e)
    return Outcome(step=step, fate=Fate.DONE, vm_id=step.vm.vm_id)


def _failed(step: Step, error: ShepherdError) -> Outcome:
    if isinstance(error, SessionLost | StaleFencingToken):
        raise error
    fate = Fate.UNKNOWN if isinstance(error, OutcomeUnknown) else Fate.FAILED
    return Outcome(
        step=step,
        fate=fate,
        reason=_class_of(error),
        message=error.message,
        retry_after=error.retry_after,
    )


def _class_of(error: ShepherdError) -> str:
    """The class that patience goes by; where it knows no finer word, what a person must mend is
    told by the reason of its kind.
    """
    is_for_people = isinstance(error, BadRequest | NotFound | Denied | Unsupported)
    if error.reason not in CLASSES and is_for_people:
        return type(error).reason
    return error.reason
