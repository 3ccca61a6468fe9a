from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.backtest.reading import read
from orchestrator.backtest.writing import write
from tests.support.timelines import line, timeline

EVERYTHING = (
    line(0, "vm", vm="a", created=-5, state="STOPPED", verdict="UNKNOWN", name="n", image="i"),
    line(0, "vm", vm="b", flavor="f", zone="z", spec_hash="s", shutdown=900, protected=True),
    line(1, "vm", vm="c", by="HOLDER"),
    line(2, "state", vm="a", state="ERROR", by="PERSON", cloud_state="ERROR", fault="x"),
    line(2, "state", vm="new", state="ERROR"),
    line(3, "verdict", vm="b", verdict="UNHEALTHY", message="ü"),
    line(3, "verdict", vm="all", verdict="UNKNOWN"),
    line(3.25, "verdict", vm="all", verdict="EACH"),
    line(4, "gone", vm="b", by="CLOUD"),
    line(5, "listing", complete=False, reason="a cell is down"),
    line(6, "refuses", reason="QUOTA_EXCEEDED", until=7, message="6 of 6", flavor="small"),
    line(6, "refuses", reason="NO_CAPACITY", image="i", zone="z"),
    line(7, "boot_time", seconds=5),
    line(8, "preset", count=0, spec_hash="", removed=True),
    line(9, "operator", action="PAUSE", processes=["HEALTH", "CREATE"], until=99, actor="ann"),
    line(9, "operator", action="RESUME", reason="done"),
    line(9, "operator", action="APPROVE", count=0),
    line(9, "operator", action="TERMINATE", vm="a", force=True),
    line(9, "operator", action="PROTECT", vm="a"),
    line(9, "operator", action="UNPROTECT", vm="a"),
    line(10, "holder_lost"),
    line(10, "clock", behind=-3600),
    line(11, "others", failing=0, probed=9),
)
HEAD: dict[str, Any] = {
    "boot_time": 45,
    "idempotent": False,
    "horizon": 120,
    "methods": ["REBUILD", "REBOOT"],
    "note": "all of it",
}


def test_what_is_written_is_read_as_it_was() -> None:
    whole = timeline(*EVERYTHING, vms=0, **HEAD)
    assert read(write(whole), file="again") == whole


@pytest.mark.parametrize("record", EVERYTHING[2:], ids=lambda each: each["what"])
def test_each_record_survives_alone(record: dict[str, Any]) -> None:
    before = [line(0, "vm", vm=name) for name in "ab"]
    whole = timeline(*before, record, vms=0)
    assert read(write(whole), file="again") == whole


def test_a_line_says_what_is_special_and_no_more() -> None:
    [_, written] = write(timeline(line(3, "refuses", reason="THROTTLED"), vms=0)).splitlines()
    assert json.loads(written) == {
        "at": 3,
        "what": "refuses",
        "reason": "THROTTLED",
        "message": "throttled",
    }


def test_moments_are_written_to_the_millisecond() -> None:
    whole = timeline(line(3, "clock", behind=1), vms=0)
    exact = replace(whole, records=(replace(whole.records[0], at=1 / 3),))
    assert '"at": 0.333' in write(exact)
