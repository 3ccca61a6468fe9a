"""What `up` shows while it runs, on a terminal and without one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from admin import live
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd.runtime.v1.event_pb2 import Event, EventSeverity
from vmshepherd_kit import stamps
from vmshepherd_kit.testing import FakeClock


class Paper(io.StringIO):
    """A screen to read afterwards."""

    def lines(self) -> list[str]:
        said = [line.split(" ", 1)[-1] for line in self.getvalue().splitlines()]
        self.seek(0)
        self.truncate()
        return said


def preset(name: str, running: int, count: int = 3, why: str = "") -> view.PresetView:
    steady = running == count
    return view.PresetView(
        name=name,
        count=count,
        phase=view.PRESET_PHASE_STEADY if steady else view.PRESET_PHASE_CONVERGING,
        vms_by_status={"RUNNING": running},
        conditions=[view.Condition(code="X", message=why)] if why else [],
    )


def presets(*shown: view.PresetView, errors: tuple[str, ...] = ()) -> api.ListPresetsResponse:
    faults = [view.Condition(code="SOURCE_ERROR", message=error) for error in errors]
    return api.ListPresetsResponse(presets=shown, source_errors=faults)


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def lines(paper: Paper) -> live.Lines:
    return live.Lines(Console(file=paper, width=40), FakeClock())


def test_a_preset_is_told_once_for_each_change(lines: live.Lines, paper: Paper) -> None:
    lines.show(presets(preset("web", 3), preset("cache", 1, why="the quota is used up")))
    assert paper.lines() == [
        "web: steady, 3 of 3 run",
        "cache: converging, 1 of 3 run: the quota is used up",
    ]
    lines.show(presets(preset("web", 3), preset("cache", 1, why="the quota is used up")))
    assert paper.lines() == []
    lines.show(presets(preset("web", 2), preset("cache", 3)))
    assert paper.lines() == ["web: converging, 2 of 3 run", "cache: steady, 3 of 3 run"]


def test_a_reason_that_counts_seconds_down_is_told_once(lines: live.Lines, paper: Paper) -> None:
    for left in (9, 8, 7):
        lines.show(presets(preset("web", 1, why=f"creating waits {left} s: no room")))
    assert len(paper.lines()) == 1
    lines.show(presets(preset("web", 1, why="creating waits 7 s: no such image")))
    lines.show(presets(preset("web", 2, why="creating waits 6 s: no such image")))
    assert len(paper.lines()) == 2


def test_a_preset_that_is_gone_and_a_source_that_fails_are_told(
    lines: live.Lines, paper: Paper
) -> None:
    lines.show(presets(preset("web", 3)))
    paper.lines()
    lines.show(presets(errors=("git: unreachable",)))
    assert paper.lines() == ["git: unreachable", "web: gone"]
    lines.show(presets())
    assert paper.lines() == ["no longer so: git: unreachable"]


def test_an_orchestrator_that_does_not_answer_is_told_once(lines: live.Lines, paper: Paper) -> None:
    lines.trouble("connection refused")
    lines.trouble("connection refused")
    assert paper.lines() == ["the orchestrator does not answer: connection refused"]
    lines.show(presets())
    assert paper.lines() == []
    lines.trouble("connection refused")
    assert len(paper.lines()) == 1


def test_an_event_is_one_line_without_what_could_drive_a_terminal(
    lines: live.Lines, paper: Paper
) -> None:
    event = Event(
        preset="web",
        kind="VM_TERMINATING",
        reason="DEAD",
        message="it said \x1b[2J",
        time=stamps.to_timestamp(FakeClock().wall()),
    )
    lines.tell(event)
    assert paper.lines() == ["web: vm terminating (dead): it said  [2J"]


def terminal(paper: Paper, height: int) -> Console:
    return Console(file=paper, force_terminal=True, width=100, height=height, color_system=None)


def test_the_table_shows_presets_and_lets_events_pass_above_it(paper: Paper) -> None:
    with live.LiveTable(terminal(paper, 30)) as table:
        table.show(presets(preset("web", 2), errors=("git: unreachable",)))
        table.tell(Event(kind="VM_CREATED", severity=EventSeverity.EVENT_SEVERITY_INFO))
        shown = paper.getvalue()
    assert "web" in shown
    assert "converging" in shown
    assert "git: unreachable" in shown
    assert "vm created" in shown


def test_a_small_screen_shows_first_what_is_not_as_declared(paper: Paper) -> None:
    many = [preset(f"fine-{n}", 3) for n in range(50)]
    with live.LiveTable(terminal(paper, 12)) as table:
        table.show(presets(*many, preset("zulu", 1)))
        shown = paper.getvalue()
    assert "zulu" in shown
    assert "and 48 more" in shown


def test_of_a_removed_preset_nothing_is_missing(lines: live.Lines, paper: Paper) -> None:
    gone = preset("web", 2, count=0)
    gone.phase = view.PRESET_PHASE_REMOVED
    lines.show(presets(gone))
    assert paper.lines() == ["web: removed, 2 run"]
