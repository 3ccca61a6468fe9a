from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator import records
from orchestrator.model import (
    Backoff,
    Intent,
    IntentPhase,
    Memory,
    Pause,
    Process,
    RequestId,
    VmId,
    VmMemory,
)
from tests.support.given import NOW
from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd_kit.errors import Refused
from vmshepherd_kit.stamps import to_timestamp

EARLIER = NOW - timedelta(minutes=3)

FULL = Memory(
    intents=tuple(
        Intent(
            request_id=RequestId(f"r-{phase.name}"),
            name=f"web-{phase.name}",
            spec_hash="spec-1",
            phase=phase,
            sent_at=None if phase is IntentPhase.PLANNED else EARLIER,
            attempts=2,
            vm_id=VmId("vm-1") if phase is IntentPhase.CONFIRMED else None,
        )
        for phase in IntentPhase
    ),
    vms={
        VmId("vm-1"): VmMemory(
            first_seen=EARLIER,
            first_running=EARLIER,
            failures=2,
            failing_since=EARLIER,
            passes=1,
            was_healthy=True,
            is_unhealthy=True,
            terminating_since=EARLIER,
            terminate_failed_at=NOW,
            boot_failure_counted=True,
        ),
        VmId("vm-2"): VmMemory(first_seen=NOW),
    },
    backoff=Backoff(failures=3, until=NOW, reason="NO_CAPACITY", message="full", spec_hash="s"),
    next_slot=7,
    accepted_count=0,
    breaker_since=EARLIER,
)


@pytest.mark.parametrize("memory", [FULL, Memory()])
def test_what_is_remembered_is_read_as_it_was_written(memory: Memory) -> None:
    value = records.memory_record(memory, fencing_token=5).SerializeToString()
    record = records.preset_record(value)
    assert records.memory_of(record, now=NOW) == memory
    assert record.fencing_token == 5


def test_what_may_have_been_sent_is_taken_for_sent() -> None:
    record = record_pb2.PresetRecord(intents=[record_pb2.Intent(request_id="r")])
    [intent] = records.memory_of(record, now=NOW).intents
    assert intent.phase is IntentPhase.SENT


@pytest.mark.parametrize("read", [records.preset_record, records.operator_record])
def test_records_of_nobody_knows_whom_are_refused(read: object) -> None:
    assert callable(read)
    newer = record_pb2.PresetRecord(schema_version=2).SerializeToString()
    for value, reason in ((newer, "RECORD_TOO_NEW"), (b"\xff\xff", "RECORD_UNREADABLE")):
        with pytest.raises(Refused) as caught:
            read(value)
        assert caught.value.reason == reason


def test_wishes_are_read_and_processes_of_later_versions_left_out() -> None:
    record = record_pb2.OperatorRecord(
        pause=view_pb2.Pause(
            processes=[view_pb2.PROCESS_CREATE, 99],  # type: ignore[list-item]
            actor="anna",
            reason="a trial",
            since_time=to_timestamp(EARLIER),
            until_time=to_timestamp(NOW),
        ),
        terminations=[record_pb2.TerminationWish(vm_id="a", actor="bert", force=True)],
        approved_count=0,
    )
    wishes = records.wishes_of(records.operator_record(record.SerializeToString()))
    assert wishes.pause == Pause(
        processes=frozenset({Process.CREATE}),
        actor="anna",
        reason="a trial",
        since=EARLIER,
        until=NOW,
    )
    assert [(wish.vm_id, wish.actor, wish.force) for wish in wishes.terminations] == [
        ("a", "bert", True)
    ]
    assert wishes.approved_count == 0
    assert records.wishes_of(records.operator_record(b"")).pause is None
