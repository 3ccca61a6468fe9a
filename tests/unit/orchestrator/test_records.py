from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import records
from orchestrator.model import (
    Backoff,
    Deletion,
    Intent,
    IntentPhase,
    Memory,
    Pause,
    Placement,
    Policy,
    Process,
    RequestId,
    Rollout,
    Shortage,
    Spec,
    VmId,
    VmMemory,
    Wishes,
)
from tests.support.given import NOW
from tests.support.shell import WEB, preset
from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd.preset.v1 import preset_pb2
from vmshepherd_kit.errors import Refused
from vmshepherd_kit.stamps import to_timestamp

EARLIER = NOW - timedelta(minutes=3)
BEGINNING, END = datetime(1971, 1, 1), datetime(9000, 1, 1)  # noqa: DTZ001  the zone is added

moments = st.datetimes(min_value=BEGINNING, max_value=END, timezones=st.just(UTC))
numbers = st.integers(0, 2**31 - 1)
placements = st.builds(Placement, image=st.text(), flavor=st.text(), zone=st.text())
memories = st.builds(
    Memory,
    intents=st.lists(
        st.builds(
            Intent,
            request_id=st.text().map(RequestId),
            name=st.text(),
            spec_hash=st.text(),
            phase=st.sampled_from(IntentPhase),
            sent_at=st.none() | moments,
            attempts=numbers,
            vm_id=st.none() | st.text(min_size=1).map(VmId),
            placement=placements,
        ),
        max_size=2,
    ).map(tuple),
    vms=st.dictionaries(
        st.text().map(VmId),
        st.builds(
            VmMemory,
            first_seen=moments,
            first_running=st.none() | moments,
            failures=numbers,
            failing_since=st.none() | moments,
            passes=numbers,
            was_healthy=st.booleans(),
            is_unhealthy=st.booleans(),
            terminating_since=st.none() | moments,
            terminate_failed_at=st.none() | moments,
            boot_failure_counted=st.booleans(),
            ready_since=st.none() | moments,
            was_proved=st.booleans(),
            reboots=numbers,
            rebuilds=numbers,
            repaired_at=st.none() | moments,
            kept_since=st.none() | moments,
            first_image=st.text(),
            first_flavor=st.text(),
        ),
        max_size=2,
    ),
    backoff=st.builds(
        Backoff,
        failures=numbers,
        until=st.none() | moments,
        reason=st.text(),
        message=st.text(),
        spec_hash=st.text(),
        held_until=st.none() | moments,
    ),
    next_slot=numbers,
    accepted_count=st.none() | numbers,
    breaker_since=st.none() | moments,
    shortages=st.lists(
        st.builds(
            Shortage,
            placement=placements,
            until=moments,
            reason=st.text(),
            message=st.text(),
            failures=numbers,
        ),
        max_size=2,
    ).map(tuple),
    deletions=st.lists(st.builds(Deletion, at=moments, for_health=st.booleans()), max_size=2).map(
        tuple
    ),
    rollout=st.none()
    | st.builds(
        Rollout,
        spec_hash=st.text(),
        stopped_at=st.none() | moments,
        stop_message=st.text(),
    ),
    suspended_since=st.none() | moments,
    resumes_seen=numbers,
)


@given(memory=memories)
def test_what_is_remembered_is_read_as_it_was_written(memory: Memory) -> None:
    value = records.memory_record(memory, fencing_token=5).SerializeToString()
    record = records.preset_record(value)
    assert records.memory_of(record, now=NOW) == memory
    assert record.fencing_token == 5


def test_the_test_before_this_one_tries_every_field() -> None:
    kinds = (Memory, Intent, Placement, VmMemory, Backoff, Shortage, Deletion, Rollout)
    tried: dict[tuple[str, str], set[str]] = {
        (kind.__name__, field.name): set() for kind in kinds for field in fields(kind)
    }

    @settings(max_examples=200, derandomize=True, database=None)
    @given(memory=memories)
    def try_all(memory: Memory) -> None:
        for each in (part for kind in kinds for part in _parts(memory, kind)):
            for field in fields(each):
                tried[type(each).__name__, field.name].add(repr(getattr(each, field.name)))

    try_all()
    assert [field for field, values in tried.items() if len(values) < 2] == []


def _parts(value: Any, kind: Any) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    if is_dataclass(value):
        yield from _parts([getattr(value, each.name) for each in fields(value)], kind)
    elif isinstance(value, Mapping):
        yield from _parts(list(value.values()), kind)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _parts(each, kind)


def test_a_record_of_a_version_that_knew_less_remembers_what_it_says_and_no_more() -> None:
    record = record_pb2.PresetRecord(
        schema_version=1,
        intents=[record_pb2.Intent(request_id="r", name="web-1")],
        vms=[record_pb2.VmMemory(vm_id="a", was_healthy=True)],
        next_slot=3,
    )
    memory = records.memory_of(records.preset_record(record.SerializeToString()), now=NOW)
    intent = Intent(request_id=RequestId("r"), name="web-1", spec_hash="", phase=IntentPhase.SENT)
    assert memory == Memory(
        intents=(intent,),
        vms={VmId("a"): VmMemory(first_seen=NOW, was_healthy=True)},
        next_slot=3,
    )
    assert records.removed_since(record) is None
    assert records.will_of(record, WEB) is None
    assert records.wishes_of(record_pb2.OperatorRecord()) == Wishes()


def test_the_last_will_of_a_preset_says_how_it_ends() -> None:
    policy = preset_pb2.Policy(on_remove=preset_pb2.ON_REMOVE_DELETE, max_deletions_per_cycle=2)
    last = preset(count=3, provider="sim", policy=policy, unmanaged=True)
    record = record_pb2.PresetRecord(will=records.will(last), removed_time=to_timestamp(EARLIER))
    found = records.will_of(records.preset_record(record.SerializeToString()), WEB)
    assert found is not None
    provider, spec = found
    assert provider == "sim"
    assert spec == Spec(
        name=WEB,
        count=0,
        spec_hash="spec-1",
        managed=False,
        policy=Policy(deleted_on_removal=True, max_deletions_per_cycle=2),
    )
    assert records.removed_since(record) == EARLIER


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
        resumes=4,
        protections=[record_pb2.Protection(vm_id="b", actor="anna", reason="the only database")],
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
    assert wishes.resumes == 4
    assert wishes.protections == {"b"}
    assert records.wishes_of(records.operator_record(b"")).pause is None
