from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.backtest.history import Now, Present, Recorded, Told, recorded
from orchestrator.backtest.reading import read
from orchestrator.backtest.replay import replay
from orchestrator.backtest.timeline import Edit, Timeline
from orchestrator.backtest.writing import write
from orchestrator.model import VmId
from tests.support.given import NOW, seconds
from tests.support.timelines import ends, terms

HOUR = 3600
RUNS = {"state": "RUNNING", "cloud_state": "ACTIVE", "spec_hash": "spec-1"}


def event(at: float, kind: str, vm: str = "", reason: str = "", **more: Any) -> Told:
    """An event so many seconds after the beginning of the window."""
    return Told(time=NOW + seconds(at), kind=kind, vm_id=vm, reason=reason, **more)


def seen(at: float, vm: str, **evidence: str) -> Told:
    return event(at, "VM_SEEN", vm, "RUNNING", evidence={**RUNS, **evidence})


def probed(at: float, vm: str, verdict: str) -> Told:
    return event(at, "VM_PROBE", vm, verdict, message=f"says {verdict.lower()}")


def stood(*names: str) -> list[Told]:
    """VMs that were seen long before the window."""
    return [each for vm in names for each in (seen(-HOUR, vm), probed(-HOUR, vm, "HEALTHY"))]


def record(events: Sequence[Told], *, count: int = 2, vms: Sequence[Present] = ()) -> Recorded:
    now = Now(
        preset="web", count=count, spec_hash="spec-1", time=NOW + seconds(HOUR), vms=tuple(vms)
    )
    return recorded(events, now, since=NOW)


def lines(found: Recorded) -> list[tuple[float, str, str]]:
    """(moment, record, what of it) for each record."""
    return [
        (
            each.at,
            type(each).__name__,
            " ".join(
                str(getattr(value, "name", value))
                for name in ("vm_id", "state", "verdict", "by", "action", "reason")
                if (value := getattr(each, name, None)) not in {None, ""}
            ),
        )
        for each in found.timeline.records
    ]


def again(found: Recorded) -> Timeline:
    """The timeline after it went through its file."""
    timeline = read(write(found.timeline), file="web.jsonl")
    assert timeline == found.timeline
    return timeline


def test_what_was_before_the_window_is_how_it_begins() -> None:
    found = record(
        [
            *stood("a", "b", "c"),
            probed(-100, "a", "UNHEALTHY"),
            event(-90, "VM_STATUS", "b", "STOPPED", evidence={**RUNS, "state": "STOPPED"}),
            event(-80, "VM_GONE", "c"),
        ]
    )
    assert lines(found) == [
        (0, "Appears", "a RUNNING UNHEALTHY CLOUD"),
        (0, "Appears", "b STOPPED HEALTHY CLOUD"),
    ]
    assert found.timeline.head.length == HOUR
    again(found)


def test_a_vm_that_stood_before_is_as_old_as_it_was_seen_or_as_the_cloud_says() -> None:
    found = record(stood("a", "b"), vms=[Present(vm_id="b", created=NOW - seconds(9 * HOUR))])
    assert [each.created for each in found.timeline.records] == [-HOUR, -9 * HOUR]  # type: ignore[union-attr]


def test_how_old_a_vm_is_is_told_by_its_events_first() -> None:
    told = (NOW - seconds(5 * HOUR)).isoformat()
    found = record([seen(-1, "a", created=told), seen(-1, "b", created="2030-01-01")])
    assert [each.created for each in found.timeline.records] == [-5 * HOUR, -1]  # type: ignore[union-attr]


def test_a_vm_that_a_person_protects_is_protected_in_the_replay() -> None:
    protected = event(-9, "VM_PROTECTED", "a")
    hangs = probed(10, "a", "UNHEALTHY")
    spared = record([*stood("a", "b"), protected, hangs])
    assert replay(again(spared), terms()).destroyed == ()
    let_go = record(
        [*stood("a", "b"), event(5, "VM_PROTECTED", "a"), hangs, event(99, "VM_UNPROTECTED", "a")]
    )
    [end] = replay(again(let_go), terms()).destroyed
    assert (end.vm_id, end.at > 99) == ("a", True)


def test_verdicts_and_states_are_recorded_as_they_change() -> None:
    found = record(
        [
            *stood("a"),
            probed(10, "a", "UNHEALTHY"),
            probed(20, "a", "UNHEALTHY"),
            probed(30, "a", "HEALTHY"),
            event(40, "VM_STATUS", "a", "ERROR", evidence={**RUNS, "state": "ERROR"}),
            event(50, "VM_STATUS", "a", "ERROR", evidence={**RUNS, "state": "ERROR"}),
        ]
    )
    assert lines(found)[1:] == [
        (10, "VerdictChange", "a UNHEALTHY"),
        (30, "VerdictChange", "a HEALTHY"),
        (40, "StateChange", "a ERROR CLOUD"),
    ]
    again(found)


def test_what_the_holder_destroyed_is_its_doing_and_what_vanished_is_the_clouds() -> None:
    found = record(
        [
            *stood("a", "b"),
            event(10, "VM_TERMINATING", "a", "UNHEALTHY"),
            event(12, "VM_STATUS", "a", "DELETING", evidence={**RUNS, "state": "DELETING"}),
            probed(13, "a", "UNKNOWN"),
            event(14, "VM_GONE", "a"),
            event(20, "VM_GONE", "b"),
        ]
    )
    assert lines(found)[2:] == [
        (12, "StateChange", "a DELETING HOLDER"),
        (14, "Gone", "a HOLDER"),
        (20, "Gone", "b CLOUD"),
    ]


def test_a_termination_that_failed_was_nobodys_doing() -> None:
    found = record(
        [
            *stood("a"),
            event(10, "VM_TERMINATING", "a", "UNHEALTHY"),
            event(11, "TERMINATE_FAILED", "a", "CONFLICT"),
            event(20, "VM_GONE", "a"),
        ]
    )
    assert lines(found)[-1] == (20, "Gone", "a CLOUD")


def test_a_vm_that_a_person_wanted_gone_is_wished_away_in_the_replay_too() -> None:
    found = record(
        [*stood("a", "b"), event(10, "VM_TERMINATING", "a", "OPERATOR"), event(20, "VM_GONE", "a")]
    )
    assert (10, "Asked", "a TERMINATE as recorded") in lines(found)
    assert ends(replay(again(found), terms())) == [("a", "OPERATOR")]


def test_a_wish_from_before_the_window_is_one_of_its_beginning_unless_it_was_fulfilled() -> None:
    wished = [*stood("a", "b"), event(-9, "VM_TERMINATING", "a", "OPERATOR")]
    assert ends(replay(again(record([*wished, event(5, "VM_GONE", "a")])), terms())) == [
        ("a", "OPERATOR")
    ]
    assert lines(record([*wished, event(-5, "VM_GONE", "a")])) == [
        (0, "Appears", "b RUNNING HEALTHY CLOUD")
    ]


def test_vms_that_the_holder_made_are_marked_as_its_own() -> None:
    found = record(
        [
            *stood("a"),
            event(10, "VM_CREATING", evidence={"request_id": "r1", "spec_hash": "spec-1"}),
            event(12, "VM_CREATED", "b", evidence={"request_id": "r1"}),
            seen(14, "b", state="PENDING", request_id="r1"),
            event(40, "VM_STATUS", "b", "RUNNING", evidence=RUNS),
            event(50, "VM_CREATING", evidence={"request_id": "r2", "spec_hash": "spec-1"}),
            seen(90, "c", request_id="r2"),
        ]
    )
    assert lines(found)[1:] == [
        (12, "Appears", "b PENDING UNKNOWN HOLDER"),
        (40, "StateChange", "b RUNNING CLOUD"),
        (90, "Appears", "c RUNNING UNKNOWN HOLDER"),
    ]
    again(found)


def test_the_boot_time_is_what_new_vms_took_in_the_middle() -> None:
    events = stood("a")
    for n, took in enumerate((20, 50, 400)):
        at = 100 * n + 10.0
        events += [
            event(at, "VM_CREATED", f"n{n}"),
            event(at + took, "VM_STATUS", f"n{n}", "RUNNING", evidence=RUNS),
        ]
    events.sort(key=lambda each: each.time)
    assert record(events).timeline.head.boot_time == 50
    assert record(stood("a")).timeline.head.boot_time == 60


def born(at: float, vm: str, verdict: str) -> list[Told]:
    return [
        event(at, "VM_CREATED", vm),
        event(at + 5, "VM_STATUS", vm, "PENDING", evidence=RUNS),
        probed(at + 6, vm, verdict),
    ]


def test_new_vms_fail_in_the_replay_while_those_of_the_holder_failed() -> None:
    found = record(
        [
            *stood("a"),
            *born(100, "b", "HEALTHY"),
            *born(200, "c", "UNHEALTHY"),
            *born(300, "d", "UNHEALTHY"),
            *born(400, "e", "HEALTHY"),
            event(500, "VM_CREATED", "f"),
            event(505, "VM_STATUS", "f", "ERROR", evidence={**RUNS, "state": "ERROR"}),
        ]
    )
    assert [each for each in lines(found) if each[2].startswith("new")] == [
        (200, "VerdictChange", "new UNHEALTHY"),
        (400, "VerdictChange", "new HEALTHY"),
        (500, "StateChange", "new ERROR CLOUD"),
    ]
    again(found)


def test_what_a_cloud_refused_lasts_until_it_took_a_create_again() -> None:
    found = record(
        [
            *stood("a"),
            event(10, "CREATE_FAILED", reason="QUOTA_EXCEEDED", message="6 of 6"),
            event(20, "CREATE_FAILED", reason="QUOTA_EXCEEDED", message="6 of 6"),
            event(90, "VM_CREATED", "b"),
            event(200, "CREATE_FAILED", reason="NO_CAPACITY", message="full"),
        ]
    )
    refused = [each for each in found.timeline.records if type(each).__name__ == "Refuses"]
    assert [(r.at, r.until, r.reason) for r in refused] == [  # type: ignore[union-attr]
        (10, 90, "QUOTA_EXCEEDED"),
        (200, None, "NO_CAPACITY"),
    ]
    again(found)


def test_a_listing_that_is_not_whole_and_a_pause_are_recorded() -> None:
    found = record(
        [
            *stood("a"),
            event(10, "CONDITION_SET", reason="LISTING_INCOMPLETE", message="a cell is down"),
            event(20, "CONDITION_CLEARED", reason="LISTING_INCOMPLETE"),
            event(25, "CONDITION_SET", reason="BREAKER_OPEN"),
            event(30, "PRESET_PAUSED", message="paused create, scale_in: disks", actor="ann"),
            event(40, "PRESET_RESUMED", actor="ann"),
        ]
    )
    assert lines(found)[1:] == [
        (10, "ListingChange", "a cell is down"),
        (20, "ListingChange", ""),
        (30, "Asked", "PAUSE disks"),
        (40, "Asked", "RESUME"),
    ]
    pause = found.timeline.records[3]
    assert {each.name for each in pause.processes} == {"CREATE", "SCALE_IN"}  # type: ignore[union-attr]
    again(found)


def test_a_listing_that_was_not_whole_when_the_window_began_is_not_forgotten() -> None:
    cell = event(-10, "CONDITION_SET", reason="LISTING_INCOMPLETE", message="a cell is down")
    found = record([*stood("a"), cell])
    assert (0, "ListingChange", "a cell is down") in lines(found)
    healed = event(-5, "CONDITION_CLEARED", reason="LISTING_INCOMPLETE")
    changes = [each for each in lines(record([*stood("a"), cell, healed])) if each[1] != "Appears"]
    assert changes == [(0, "ListingChange", "")], "of what was before only the last word holds"


def test_a_changed_spec_is_known_by_what_was_made() -> None:
    found = record(
        [
            *stood("a"),
            event(-5, "VM_CREATING", evidence={"request_id": "r1", "spec_hash": "spec-0"}),
            event(10, "VM_CREATING", evidence={"request_id": "r2", "spec_hash": "spec-1"}),
        ]
    )
    assert found.timeline.head.spec_hash == "spec-0"
    assert [(each.at, each.spec_hash) for each in found.timeline.records[1:]] == [  # type: ignore[union-attr]
        (10, "spec-1")
    ]


def warnings(found: Recorded) -> str:
    return "; ".join(found.warnings)


def test_events_of_an_older_version_are_read_by_their_status_and_said_to_be_a_guess() -> None:
    found = record(
        [
            event(-10, "VM_SEEN", "a", "RUNNING"),
            event(20, "VM_STATUS", "a", "UNHEALTHY"),
            event(30, "VM_STATUS", "a", "RUNNING"),
            event(40, "VM_STATUS", "a", "STOPPED"),
        ]
    )
    assert lines(found) == [
        (0, "Appears", "a RUNNING HEALTHY CLOUD"),
        (20, "VerdictChange", "a UNHEALTHY"),
        (30, "VerdictChange", "a HEALTHY"),
        (40, "StateChange", "a STOPPED CLOUD"),
    ]
    assert "older version" in warnings(found)
    assert "older version" not in warnings(record(stood("a")))


def test_a_vm_that_is_seen_late_and_was_made_by_nobody_stood_from_the_start() -> None:
    found = record([*stood("a"), seen(30, "b")])
    assert (0, "Appears", "b RUNNING HEALTHY CLOUD") in lines(found)
    assert "whose making is not in the journal" in warnings(found)


def test_a_vm_of_which_no_event_tells_served_all_the_time() -> None:
    found = record(stood("a"), vms=[Present(vm_id="a"), Present(vm_id="z", zone="b")])
    assert (0, "Appears", "z RUNNING HEALTHY CLOUD") in lines(found)
    assert "of which no event tells" in warnings(found)
    assert "of which no event tells" not in warnings(record(stood("a"), vms=[Present(vm_id="a")]))


def test_a_journal_that_does_not_reach_so_far_shortens_the_timeline() -> None:
    found = record([seen(600, "a")])
    assert (found.timeline.head.start, found.timeline.head.length) == (NOW + seconds(600), 3000)
    assert "begins there" in warnings(found)


def test_a_holder_that_starts_again_sees_the_same_vms_and_no_new_ones() -> None:
    found = record([*stood("a"), seen(100, "a"), probed(101, "a", "HEALTHY")])
    assert lines(found) == [(0, "Appears", "a RUNNING HEALTHY CLOUD")]


def test_an_id_that_a_cloud_gives_twice_stands_for_two_vms() -> None:
    found = record([*stood("a"), event(10, "VM_GONE", "a"), event(20, "VM_CREATED", "a")])
    assert lines(found)[1:] == [
        (10, "Gone", "a CLOUD"),
        (20, "Appears", "a~2 PENDING UNKNOWN HOLDER"),
    ]
    again(found)


def edited(at: float, former: int, count: int) -> Told:
    evidence = {"count": str(count), "former_count": str(former), "spec_hash": "spec-1"}
    return event(at, "PRESET_EDITED", evidence=evidence)


def test_a_count_of_whose_change_nothing_is_told_is_that_of_the_end() -> None:
    assert record(stood("a"), count=7).timeline.head.count == 7


def test_changed_counts_are_replayed_as_they_were_accepted() -> None:
    found = record([*stood("a"), edited(-9, 9, 1), edited(10, 1, 30), edited(999, 30, 2)])
    assert found.timeline.head.count == 1
    assert [(each.at, each.count) for each in found.timeline.records if isinstance(each, Edit)] == [
        (10, 30),
        (999, 2),
    ]
    # The guard of the count must not ask again what was answered then.
    story = replay(again(found), terms())
    assert story.creates == 29
    assert "COUNT_NEEDS_APPROVAL" not in {each.code for each in story.held}
    assert not warnings(found)


def test_a_count_that_is_told_and_is_not_that_of_today_is_said_to_be_left_out() -> None:
    found = record([*stood("a"), edited(10, 1, 3)], count=7)
    assert found.timeline.head.count == 1
    assert "the last count that is told is 3, and 7 is declared now" in warnings(found)


def test_a_spec_changes_when_that_is_told_and_not_once_more_with_the_first_vm_of_it() -> None:
    change = {"spec_hash": "spec-1", "former_spec_hash": "spec-0", "count": "1"}
    made = {"request_id": "r1", "spec_hash": "spec-1"}
    found = record(
        [
            *stood("a"),
            event(10, "PRESET_EDITED", evidence=change),
            event(50, "VM_CREATING", evidence=made),
        ],
        count=1,
    )
    assert found.timeline.head.spec_hash == "spec-0"
    edits = [each for each in found.timeline.records if isinstance(each, Edit)]
    assert [(each.at, each.spec_hash, each.count) for each in edits] == [(10, "spec-1", None)]
    again(found)


@pytest.mark.parametrize("kind", ["VM_KEPT", "VM_TERMINATING"])
def test_silence_about_a_vm_that_was_set_aside_is_no_recovery(kind: str) -> None:
    hung = [*stood("a", "b"), probed(10, "a", "UNHEALTHY"), event(60, kind, "a", "UNHEALTHY")]
    found = record([*hung, probed(61, "a", "UNKNOWN")])
    assert ends(replay(again(found), terms())) == [("a", "UNHEALTHY")]


def test_a_night_as_it_was_recorded_replays_as_it_went() -> None:
    night = [
        *stood("a", "b", "c"),
        probed(100, "b", "UNHEALTHY"),
        event(140, "VM_CREATING", evidence={"request_id": "r1", "spec_hash": "spec-1"}),
        event(141, "VM_CREATED", "d"),
        seen(142, "d", state="PENDING"),
        event(180, "VM_STATUS", "d", "RUNNING", evidence=RUNS),
        probed(181, "d", "HEALTHY"),
        event(190, "VM_TERMINATING", "b", "UNHEALTHY"),
        event(200, "VM_GONE", "b"),
    ]
    story = replay(again(record(night, count=3)), terms())
    assert ends(story) == [("b", "UNHEALTHY")]
    assert story.creates == 1
    assert VmId("d") not in {each.vm_id for each in story.destroyed}
