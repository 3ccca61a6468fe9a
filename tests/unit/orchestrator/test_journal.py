from __future__ import annotations

import pytest

from orchestrator.journal import EVENT_BYTES
from orchestrator.narrate import Telling
from tests.support.shell import WEB, Store, journal
from vmshepherd.runtime.v1 import event_pb2
from vmshepherd_kit.testing import FakeClock


async def written(telling: Telling) -> event_pb2.Event:
    clock = FakeClock()
    store = Store(clock)
    await journal(store, clock).record(WEB, [telling], fencing_token=2**62)
    [event] = store.events
    return event


async def test_a_console_keeps_its_end_and_is_whole_where_it_is_short() -> None:
    for lines, begins in ((50, "line 0"), (5000, "…")):
        console = "\n".join(f"line {number}" for number in range(lines))
        event = await written(
            Telling(kind="VM_TERMINATING", message="m", evidence={"console": console})
        )
        assert event.evidence["console"].startswith(begins)
        assert event.evidence["console"].endswith(f"line {lines - 1}")
        assert len(event.evidence["console"].encode()) <= 8192


@pytest.mark.parametrize("letter", ["x", "ö", "語"])
async def test_no_event_is_larger_than_the_store_takes_however_much_there_is_to_tell(
    letter: str,
) -> None:
    facts = ("evidence", "cloud_state", "fault", "last_probe", "image", "console")
    event = await written(
        Telling(
            kind="VM_TERMINATING",
            message=letter * 9000,
            vm_id="v" * 128,
            evidence=dict.fromkeys(facts, letter * 9000),
        )
    )
    assert event.ByteSize() <= EVENT_BYTES
    assert event.evidence["console"].endswith(letter)
    assert event.evidence["fault"].startswith(letter)


async def test_the_console_gives_way_to_the_other_facts() -> None:
    facts = {f"fact {number}": "x" * 1024 for number in range(11)}
    telling = Telling(kind="K", message="x" * 4096, evidence={**facts, "console": "y" * 9000})
    event = await written(telling)
    assert set(facts) < set(event.evidence)
    assert event.ByteSize() <= EVENT_BYTES
