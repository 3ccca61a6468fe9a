"""A preset file that is broken in an editor: its preset runs on and says so, the others go on."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.e2e.suite import Suite
from tests.e2e.waiting import until
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase

pytestmark = pytest.mark.e2e

GARBAGE = "count: 3\nflavour: web\ncuont: 7\n\x07 {{{ \n"
UNKNOWN_KEY = "count: 3\nflavor: web\nimage: image-1\ncuont: 7\n"


def test_a_broken_file_keeps_its_preset_running_and_is_named_by_file_line_and_key(
    suite: Suite,
) -> None:
    suite.declare("web", 3)
    suite.declare("cache", 1)
    suite.up()
    web = suite.until_running("web", 3)
    suite.until_running("cache", 1)

    suite.write_preset("web", UNKNOWN_KEY)
    finding = until(lambda: findings(suite)["web"], "the fault of web's file is listed")[0]
    assert finding["file"].endswith("web.yaml")
    assert (finding["line"], finding["key"]) == (4, "cuont")
    assert "'count'" in finding["message"]
    assert "web.yaml:4" in suite.command("preset", "list").stdout

    # It is kept as its last good text says, and so are the others.
    os.kill(suite.pid_of(next(iter(web.values()))), signal.SIGKILL)
    until(lambda: set(suite.running("web")) - set(web), "a killed VM of web is replaced")
    suite.declare("cache", 2)
    suite.until_running("cache", 2)
    assert findings(suite)["cache"] == []
    assert len(suite.running("web")) == 3

    suite.declare("web", 4)
    suite.until_running("web", 4)
    assert findings(suite)["web"] == []


@pytest.mark.parametrize(
    "broken",
    [GARBAGE, "", 'count: 3\nflavor: "we', "count: 99999999\n"],
    ids=["garbage", "empty", "half-a-line", "far-too-many"],
)
def test_nothing_is_made_or_destroyed_for_a_file_that_is_not_understood(
    suite: Suite, broken: str
) -> None:
    path = suite.declare("web", 2)
    suite.up()
    before = suite.until_running("web", 2)
    path.write_text(broken)
    until(lambda: findings(suite)["web"], "the fault of web's file is listed")
    events = len(suite.events("web", "", "VM_CREATING", "VM_TERMINATING"))
    suite.declare("probe", 1)
    suite.until_running("probe", 1)
    assert set(suite.running("web")) == set(before)
    assert len(suite.events("web", "", "VM_CREATING", "VM_TERMINATING")) == events


def test_half_a_file_and_an_editors_swap_of_two_files_remove_nothing(suite: Suite) -> None:
    path = suite.declare("web", 2)
    suite.declare("cache", 1)
    suite.up()
    before = suite.until_running("web", 2)
    text = path.read_text()
    # As some editors do: the old file goes away first, the new one appears in pieces.
    path.rename(path.with_suffix(".yaml~"))
    with path.open("w") as file:
        for part in (text[: len(text) // 2], text[len(text) // 2 :]):
            file.write(part)
            file.flush()
    suite.declare("cache", 2)
    suite.until_running("cache", 2)
    until(lambda: findings(suite)["web"] == [], "web's file is understood")
    assert set(suite.until_running("web", 2)) == set(before)
    assert suite.preset("web").phase == PresetPhase.PRESET_PHASE_STEADY
    assert suite.events("web", "", "VM_TERMINATING") == []


def findings(suite: Suite) -> dict[str, list[dict[str, Any]]]:
    """What is wrong with each preset's file, as scripts read it."""
    listed = suite.json_of("preset", "list")
    return {preset["name"]: preset["findings"] for preset in listed["presets"]}
