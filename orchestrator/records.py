"""Memory and wishes ⇄ the records in the runtime store: pure, and tolerant of older writers.

A record of a newer schema is refused: its preset is left alone until this replica is upgraded.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from google.protobuf.message import DecodeError

from vmshepherd.orchestrator.v1 import record_pb2 as pb
from vmshepherd.orchestrator.v1 import view_pb2
from vmshepherd.preset.v1 import preset_pb2
from vmshepherd_kit.errors import Refused
from vmshepherd_kit.stamps import from_timestamp, to_timestamp, to_timestamp_if

from .clients import presets
from .model import (
    Backoff,
    Deletion,
    Intent,
    IntentPhase,
    Memory,
    Pause,
    Placement,
    PresetName,
    Process,
    RequestId,
    Rollout,
    Shortage,
    Spec,
    TerminationWish,
    VmId,
    VmMemory,
    Wishes,
)

SCHEMA_VERSION = 1

Record = TypeVar("Record", pb.PresetRecord, pb.OperatorRecord)

_PHASES = {
    IntentPhase.PLANNED: pb.INTENT_PHASE_PLANNED,
    IntentPhase.SENT: pb.INTENT_PHASE_SENT,
    IntentPhase.CONFIRMED: pb.INTENT_PHASE_CONFIRMED,
}
_PROCESSES = {
    Process.CREATE: view_pb2.PROCESS_CREATE,
    Process.REPLACE: view_pb2.PROCESS_REPLACE,
    Process.HEALTH: view_pb2.PROCESS_HEALTH,
    Process.ROLLOUT: view_pb2.PROCESS_ROLLOUT,
    Process.SCALE_IN: view_pb2.PROCESS_SCALE_IN,
}


def preset_record(value: bytes) -> pb.PresetRecord:
    """The record in a state.  Refused when it cannot be understood."""
    return _checked(pb.PresetRecord(), value)


def operator_record(value: bytes) -> pb.OperatorRecord:
    """The record in a state.  Refused when it cannot be understood."""
    return _checked(pb.OperatorRecord(), value)


def memory_record(memory: Memory, *, fencing_token: int) -> pb.PresetRecord:
    """A record without its views."""
    backoff = memory.backoff
    return pb.PresetRecord(
        schema_version=SCHEMA_VERSION,
        fencing_token=fencing_token,
        intents=[_intent_message(intent) for intent in memory.intents],
        vms=[_vm_message(vm_id, vm) for vm_id, vm in sorted(memory.vms.items())],
        create_failures=backoff.failures,
        create_backoff_until_time=to_timestamp_if(backoff.until),
        create_held_until_time=to_timestamp_if(backoff.held_until),
        create_error=backoff.message,
        create_error_reason=backoff.reason,
        create_error_spec_hash=backoff.spec_hash,
        next_slot=memory.next_slot,
        accepted_count=memory.accepted_count,
        breaker_open_time=to_timestamp_if(memory.breaker_since),
        shortages=[_shortage_message(shortage) for shortage in memory.shortages],
        deletions=[
            pb.Deletion(time=to_timestamp(each.at), for_health=each.for_health)
            for each in memory.deletions
        ],
        rollout=_rollout_message(memory.rollout) if memory.rollout else None,
        suspended_time=to_timestamp_if(memory.suspended_since),
        resumes_seen=memory.resumes_seen,
    )


def memory_of(record: pb.PresetRecord, *, now: datetime) -> Memory:
    """What a record remembers."""
    return Memory(
        intents=tuple(_intent(message) for message in record.intents),
        vms={VmId(message.vm_id): _vm(message, now) for message in record.vms},
        backoff=Backoff(
            failures=record.create_failures,
            until=from_timestamp(record.create_backoff_until_time),
            held_until=from_timestamp(record.create_held_until_time),
            reason=record.create_error_reason,
            message=record.create_error,
            spec_hash=record.create_error_spec_hash,
        ),
        next_slot=record.next_slot,
        accepted_count=record.accepted_count if record.HasField("accepted_count") else None,
        breaker_since=from_timestamp(record.breaker_open_time),
        shortages=tuple(_shortage(message, now) for message in record.shortages),
        deletions=tuple(
            Deletion(at=from_timestamp(message.time) or now, for_health=message.for_health)
            for message in record.deletions
        ),
        rollout=_rollout(record.rollout) if record.HasField("rollout") else None,
        suspended_since=from_timestamp(record.suspended_time),
        resumes_seen=record.resumes_seen,
    )


def wishes_of(record: pb.OperatorRecord) -> Wishes:
    """What people asked for."""
    return Wishes(
        pause=_pause(record.pause) if record.HasField("pause") else None,
        terminations=tuple(
            TerminationWish(
                vm_id=VmId(wish.vm_id), actor=wish.actor, reason=wish.reason, force=wish.force
            )
            for wish in record.terminations
        ),
        approved_count=record.approved_count if record.HasField("approved_count") else None,
        protections=frozenset(VmId(each.vm_id) for each in record.protections),
        resumes=record.resumes,
    )


def will(declared: presets.Declared) -> pb.Will:
    """What is to be done once this preset is not declared any more."""
    spec = declared.message.spec
    return pb.Will(
        provider=declared.provider,
        policy=spec.policy,
        spec_hash=declared.message.spec_hash,
        unmanaged=spec.unmanaged,
    )


def relented(left: pb.Will, last: pb.Will) -> pb.Will:
    """A will with the mercy of what was declared last, which no cycle has heard any more.

    Never the other way: whoever heard less than the holder before him must make nothing worse.
    """
    mild = pb.Will()
    mild.CopyFrom(left)
    mild.unmanaged = left.unmanaged or last.unmanaged
    if last.policy.on_remove != preset_pb2.ON_REMOVE_DELETE:
        mild.policy.on_remove = preset_pb2.ON_REMOVE_KEEP
    elif presets.policy(last.policy).removal_grace > presets.policy(left.policy).removal_grace:
        mild.policy.removal_grace.CopyFrom(last.policy.removal_grace)
    return mild


def will_of(record: pb.PresetRecord, name: PresetName) -> tuple[str, Spec] | None:
    """The provider of a removed preset and a spec for its end: nobody is wanted any more.

    None where an older version wrote the record: nothing is known, so nothing may be done.
    """
    if not record.HasField("will"):
        return None
    left = record.will
    return left.provider, Spec(
        name=name,
        count=0,
        spec_hash=left.spec_hash,
        managed=not left.unmanaged,
        policy=presets.policy(left.policy),
    )


def removed_since(record: pb.PresetRecord) -> datetime | None:
    """Since when the preset has not been declared; None while it is."""
    return from_timestamp(record.removed_time)


def _checked(record: Record, value: bytes) -> Record:
    try:
        record.ParseFromString(value)
    except DecodeError as e:
        raise Refused("a record of the store cannot be read", reason="RECORD_UNREADABLE") from e
    if record.schema_version > SCHEMA_VERSION:
        raise Refused(
            f"a record has schema {record.schema_version}, this version knows {SCHEMA_VERSION}: "
            "upgrade this replica",
            reason="RECORD_TOO_NEW",
        )
    return record


def _pause(message: view_pb2.Pause) -> Pause:
    known = {number: process for process, number in _PROCESSES.items()}
    return Pause(
        processes=frozenset(known[number] for number in message.processes if number in known),
        actor=message.actor,
        reason=message.reason,
        since=from_timestamp(message.since_time),
        until=from_timestamp(message.until_time),
    )


def _intent_message(intent: Intent) -> pb.Intent:
    return pb.Intent(
        request_id=intent.request_id,
        spec_hash=intent.spec_hash,
        phase=_PHASES[intent.phase],
        sent_time=to_timestamp_if(intent.sent_at),
        attempts=intent.attempts,
        vm_id=intent.vm_id or "",
        name=intent.name,
        image=intent.placement.image,
        flavor=intent.placement.flavor,
        zone=intent.placement.zone,
    )


def _intent(message: pb.Intent) -> Intent:
    phases = {number: phase for phase, number in _PHASES.items()}
    return Intent(
        request_id=RequestId(message.request_id),
        name=message.name,
        spec_hash=message.spec_hash,
        # What is not known to be planned may have been sent.
        phase=phases.get(message.phase, IntentPhase.SENT),
        sent_at=from_timestamp(message.sent_time),
        attempts=message.attempts,
        vm_id=VmId(message.vm_id) if message.vm_id else None,
        placement=_placement(message),
    )


def _placement(message: pb.Intent | pb.Shortage) -> Placement:
    return Placement(image=message.image, flavor=message.flavor, zone=message.zone)


def _shortage_message(shortage: Shortage) -> pb.Shortage:
    return pb.Shortage(
        image=shortage.placement.image,
        flavor=shortage.placement.flavor,
        zone=shortage.placement.zone,
        until_time=to_timestamp(shortage.until),
        reason=shortage.reason,
        message=shortage.message,
        failures=shortage.failures,
    )


def _shortage(message: pb.Shortage, now: datetime) -> Shortage:
    return Shortage(
        placement=_placement(message),
        until=from_timestamp(message.until_time) or now,
        reason=message.reason,
        message=message.message,
        failures=message.failures,
    )


def _rollout_message(rollout: Rollout) -> pb.Rollout:
    return pb.Rollout(
        spec_hash=rollout.spec_hash,
        stopped_time=to_timestamp_if(rollout.stopped_at),
        stop_message=rollout.stop_message,
    )


def _rollout(message: pb.Rollout) -> Rollout:
    return Rollout(
        spec_hash=message.spec_hash,
        stopped_at=from_timestamp(message.stopped_time),
        stop_message=message.stop_message,
    )


def _vm_message(vm_id: VmId, memory: VmMemory) -> pb.VmMemory:
    return pb.VmMemory(
        vm_id=vm_id,
        first_seen_time=to_timestamp_if(memory.first_seen),
        first_running_time=to_timestamp_if(memory.first_running),
        failures=memory.failures,
        failing_since_time=to_timestamp_if(memory.failing_since),
        passes=memory.passes,
        was_healthy=memory.was_healthy,
        is_unhealthy=memory.is_unhealthy,
        terminating_time=to_timestamp_if(memory.terminating_since),
        terminate_failed_time=to_timestamp_if(memory.terminate_failed_at),
        boot_failure_counted=memory.boot_failure_counted,
        ready_time=to_timestamp_if(memory.ready_since),
        was_proved=memory.was_proved,
        reboots=memory.reboots,
        rebuilds=memory.rebuilds,
        repaired_time=to_timestamp_if(memory.repaired_at),
        kept_time=to_timestamp_if(memory.kept_since),
        first_image=memory.first_image,
        first_flavor=memory.first_flavor,
    )


def _vm(message: pb.VmMemory, now: datetime) -> VmMemory:
    return VmMemory(
        first_seen=from_timestamp(message.first_seen_time) or now,
        first_running=from_timestamp(message.first_running_time),
        failures=message.failures,
        failing_since=from_timestamp(message.failing_since_time),
        passes=message.passes,
        was_healthy=message.was_healthy,
        is_unhealthy=message.is_unhealthy,
        terminating_since=from_timestamp(message.terminating_time),
        terminate_failed_at=from_timestamp(message.terminate_failed_time),
        boot_failure_counted=message.boot_failure_counted,
        ready_since=from_timestamp(message.ready_time),
        was_proved=message.was_proved,
        reboots=message.reboots,
        rebuilds=message.rebuilds,
        repaired_at=from_timestamp(message.repaired_time),
        kept_since=from_timestamp(message.kept_time),
        first_image=message.first_image,
        first_flavor=message.first_flavor,
    )
