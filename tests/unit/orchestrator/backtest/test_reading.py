from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.backtest.reading import Unreadable, read
from orchestrator.backtest.timeline import ALL, Appears, Edit, Refuses, VerdictChange
from orchestrator.model import Verdict, VmState
from tests.support.given import NOW, seconds
from tests.support.timelines import HEAD, line, standing, text

STANDING = standing(1)


def faults(*records: Any, raw: str = "", **head: Any) -> list[str]:
    """What is wrong with a timeline of one VM, web-1, and these records."""
    with pytest.raises(Unreadable) as caught:
        read(text(*STANDING, *records, **head) + raw, file="web.jsonl")
    return list(caught.value.lines)


def fault(*records: Any, raw: str = "", **head: Any) -> str:
    [only] = faults(*records, raw=raw, **head)
    return only


def lines_of(story: str) -> tuple[str, ...]:
    """The faults of a text, none when it is a timeline."""
    try:
        read(story, file="web.jsonl")
    except Unreadable as e:
        return e.lines
    return ()


def test_a_timeline_is_read_as_it_is_written() -> None:
    story = text(
        *STANDING,
        line(10, "verdict", vm="all", verdict="EACH"),
        line(10, "preset", count=0),
        line(12.5, "refuses", reason="NO_CAPACITY", until=20),
        idempotent=False,
        horizon=120,
        boot_time=45,
        note="a quiet night",
    )
    found = read(story, file="web.jsonl")
    assert (found.head.preset, found.head.count, found.head.start) == ("web", 3, NOW)
    assert (found.head.boot_time, found.head.note) == (45, "a quiet night")
    assert (found.head.cloud.idempotent, found.head.cloud.horizon) == (False, seconds(120))
    first, said, edit, refuses = found.records
    assert isinstance(first, Appears)
    assert (first.state, first.verdict, first.created) == (
        VmState.RUNNING,
        Verdict.HEALTHY,
        -86400,
    )
    assert said == VerdictChange(at=10, vm_id=ALL, verdict=None)
    assert edit == Edit(at=10, count=0)
    assert refuses == Refuses(at=12.5, reason="NO_CAPACITY", message="no capacity", until=20)


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    found = read(text(start="2030-01-01T14:00:00+02:00"), file="web.jsonl")
    assert found.head.start == NOW


def test_empty_lines_are_passed_over_and_faults_bear_the_number_of_their_line() -> None:
    raw = '\n\n{"at": 1, "what": "clock"}\n'
    assert fault(raw=raw) == "web.jsonl:5: behind: is required"


def test_every_fault_is_told_and_not_only_the_first() -> None:
    found = faults(line(1, "clock"), line(2, "listing"), line(3, "clock", behind=1))
    assert found == ["web.jsonl:3: behind: is required", "web.jsonl:4: complete: is required"]


def test_of_very_many_faults_the_first_are_told() -> None:
    assert len(faults(*[line(n, "clock") for n in range(100)])) == 20


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (line(1, "clokc"), "what: 'clokc' is no record; did you mean 'clock'?"),
        (line(1, "xyzzy"), "what: 'xyzzy' is no record: there are boot_time, clock, gone"),
        ({"what": "clock"}, "at: is required"),
        ({"at": 1}, "what: is required"),
        (line(-1, "clock", behind=1), "at: must be a number of seconds from 0 to"),
        (line(1, "clock", behind=True), "behind: must be a number of seconds"),
        (line(1, "clock", behind="1h"), "behind: must be a number of seconds"),
        (line(1, "clock", behind=1, bhind=1), "bhind: unknown field; did you mean 'behind'?"),
        (line(1, "listing", complete="yes"), "complete: must be true or false"),
        (line(1, "preset", count=-1), "count: must be a whole number from 0"),
        (line(1, "preset", count=2.5), "count: must be a whole number from 0"),
        (line(1, "preset", count=True), "count: must be a whole number from 0"),
        (line(1, "preset"), "changes nothing: write count, spec_hash or removed"),
        (line(1, "refuses", reason=" "), "reason: must not be empty"),
        (line(5, "refuses", reason="X", until=5), "until: must lie after at"),
        (line(5, "holder_lost", until=2), "until: must lie after at"),
        (line(1, "state", vm="web-1", state="RUNING"), "state: must be one of PENDING, RUNNING"),
        (line(1, "state", vm="web-1", state="RUNING"), "did you mean 'RUNNING'?"),
        (line(1, "state", vm="all", state="ERROR"), "vm: 'all' stands for verdicts only"),
        (line(1, "state", vm="new", state="STOPPED"), "state: VMs to come can be one of ERROR"),
        (line(1, "state", vm="web-2", state="ERROR"), "vm: no VM 'web-2' has appeared: add its"),
        (line(1, "state", vm="web-2", state="ERROR"), "did you mean 'web-1'?"),
        (line(1, "gone", vm="web-1"), "by: is required"),
        (line(1, "gone", vm="all", by="CLOUD"), "vm: 'all' is a word of the replay's own"),
        (line(1, "verdict", vm="web-1", verdict="EACH"), "verdict: EACH ends what was said of"),
        (line(1, "vm", vm="web-2"), "by: is required after the start: HOLDER made it"),
        (line(1, "vm", vm="web-1", by="CLOUD"), "vm: 'web-1' appeared before"),
        (line(1, "vm", vm="new-1", by="CLOUD"), "vm: 'new-1' is a word of the replay's own"),
        (line(1, "operator", action="PAUSE", processes="HEALTH"), "processes: must be a list"),
        (line(1, "operator", action="PAUSE", processes=["HELTH"]), "did you mean 'HEALTH'?"),
        (line(1, "operator", action="APPROVE"), "count: is required"),
        (line(1, "operator", action="TERMINATE"), "vm: is required"),
        (line(1, "operator", action="RESUME", vm="web-1"), "vm: unknown field"),
        (line(9999, "clock", behind=1), "at: lies after the end: raise the head's length"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(record: dict[str, Any], message: str) -> None:
    told = fault(record)
    assert told.startswith("web.jsonl:3: ")
    assert message in told


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("nonsense", "is no JSON object of one line"),
        ("[1]", "is no JSON object of one line"),
        ("[" * 5000, "is no JSON object of one line"),
        ('{"at": 1' + "0" * 5000 + "}", "is no JSON object of one line"),
        ('{"at": 1, "at": 2}', "at: stands twice: remove one"),
        ('{"at": NaN}', "NaN is no number"),
        ('{"at": 1e999, "what": "clock"}', "at: must be a number of seconds"),
        ('{"at": 1' + "0" * 400 + ', "what": "clock"}', "at: must be a number of seconds"),
        ('{"at": "' + "x" * 70_000 + '"}', "is longer than 65536 characters"),
        ('{"at": 1, "what": ["clock"]}', "what: must be a text"),
    ],
)
def test_lines_that_are_no_records_are_refused(raw: str, message: str) -> None:
    assert message in fault(raw=raw)


def test_records_stand_in_the_order_of_time() -> None:
    told = fault(line(10, "clock", behind=1), line(9, "clock", behind=2))
    assert told.startswith("web.jsonl:4: at: lies before that of the line above")


def test_of_a_vm_that_is_gone_nothing_more_is_told() -> None:
    gone = line(1, "gone", vm="web-1", by="CLOUD")
    told = fault(gone, line(2, "verdict", vm="web-1", verdict="HEALTHY"))
    assert told == "web.jsonl:4: vm: 'web-1' is gone already: remove this line"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"timeline": 2}, "timeline: version 2 is not known to this program: 1 is"),
        ({"timeline": None}, "timeline: must be a whole number"),
        ({"preset": ""}, "preset: must not be empty"),
        ({"start": "2030-01-01T12:00:00"}, "start: must be a time with its zone"),
        ({"start": "yesterday"}, "start: must be a time with its zone"),
        ({"length": 1e9}, "length: must be a number of seconds from 0 to 7776000"),
        (
            {"methods": ["REBOOTS"]},
            "methods: must be one of REBOOT, REBUILD; did you",
        ),
        ({"lenght": 5}, "lenght: unknown field; did you mean 'length'?"),
    ],
)
def test_a_head_that_is_wrong_ends_the_reading(head: dict[str, Any], message: str) -> None:
    assert fault(**head).startswith(f"web.jsonl:1: {message}")


def test_a_text_that_does_not_begin_with_a_head_says_how_to_begin() -> None:
    with pytest.raises(Unreadable, match=r"web\.jsonl:1: timeline: is required: a timeline begins"):
        read(json.dumps(STANDING[0]), file="web.jsonl")
    with pytest.raises(Unreadable, match=r'web\.jsonl: is empty: begin with \{"timeline": 1'):
        read("\n \n", file="web.jsonl")


def test_a_head_may_not_leave_out_what_only_it_can_say() -> None:
    for name in ("preset", "start", "length"):
        left = {key: value for key, value in {**HEAD, "count": 1}.items() if key != name}
        with pytest.raises(Unreadable, match=f"{name}: is required"):
            read(json.dumps(left), file="web.jsonl")


@given(st.text(max_size=300))
def test_any_text_is_a_timeline_or_refused_in_words(words: str) -> None:
    for story in (words, text() + words):
        assert all(each.startswith("web.jsonl") for each in lines_of(story))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_FIELDS = st.sampled_from(
    ["at", "what", "vm", "state", "verdict", "by", "count", "action", "until", "reason", "complete"]
)


@given(st.dictionaries(_FIELDS, _JSON), st.sampled_from(["vm", "state", "operator", "refuses"]))
def test_any_record_is_read_or_refused_in_words(record: dict[str, Any], what: str) -> None:
    story = text(*STANDING, {"at": 1, "what": what, **record})
    assert all(each.startswith("web.jsonl:3") for each in lines_of(story))
