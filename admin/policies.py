"""What `vmshepherd policy backtest` reads, replays and prints; it asks nobody.

Preset files go through preset_service's own reading and the orchestrator's own mapping, so that a
policy means here what it means in earnest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import typer

from admin import policy_report, printing, tables, validation
from admin.options import Asking, Exit, fail
from admin.words import clean
from orchestrator.backtest.comparison import Comparison, verdict
from orchestrator.backtest.reading import Unreadable, read
from orchestrator.backtest.replay import INTERVAL, SOON, replay
from orchestrator.backtest.timeline import Timeline
from orchestrator.clients.presets import declared
from orchestrator.model import Check, Policy, Spec
from preset_service import convert
from preset_service.domain import Preset, Severity
from vmshepherd_kit import entry
from vmshepherd_kit.errors import ShepherdError

_MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """A policy, where it comes from, and how often its preset is looked at."""

    source: str
    spec: Spec
    interval: timedelta = INTERVAL


def backtest(
    asking: Asking,
    timelines: Sequence[Path],
    *,
    proposed: Path,
    present: Path | None,
    config: Path | None,
    fail_if_more: bool,
) -> None:
    """Both policies side by side in each timeline; exits with 1 when that was asked for."""
    ours = _terms(proposed, config)
    theirs = None if present is None else _terms(present, config)
    played = [_replayed(path, ours, theirs) for path in timelines]
    comparisons = [comparison for _, comparison in played]
    if asking.is_json:
        print(json.dumps(policy_report.message(played), indent=2))
    else:
        for each in played:
            policy_report.show(*each)
        printing.print_lines(["", verdict(comparisons)], style="bold")
    if fail_if_more and any(each.is_worse for each in comparisons):
        raise typer.Exit(Exit.FAILURE)


def _replayed(path: Path, ours: _Terms, theirs: _Terms | None) -> tuple[Timeline, Comparison]:
    timeline = _timeline(path)
    for terms in (ours, theirs):
        if terms is not None:
            _note(terms, timeline, path)
    against = theirs or _built_in(ours, timeline)
    comparison = Comparison(
        name=str(path),
        proposed=replay(timeline, ours.spec, interval=ours.interval),
        present=replay(timeline, against.spec, interval=against.interval),
    )
    return timeline, comparison


def _note(terms: _Terms, timeline: Timeline, path: Path) -> None:
    """Say what a reader may have expected otherwise: the timeline is of another preset or count."""
    spec, preset = terms.spec, timeline.head.preset
    if spec.name != preset:
        words = f"{terms.source} declares {spec.name!r}, and {path} is of {preset!r}"
        print(f"note: {clean(words)}: its policy is replayed all the same", file=sys.stderr)
    elif spec.count not in timeline.counts:
        words = f"{terms.source} says count {spec.count}, and {path} never has it"
        print(f"note: {clean(words)}: the timeline's count is replayed", file=sys.stderr)


def _built_in(ours: _Terms, timeline: Timeline) -> _Terms:
    """The safe defaults; with a check, where there is one or where the timeline knows of one."""
    has_check = ours.spec.check is not None or timeline.has_verdicts
    spec = replace(ours.spec, policy=Policy(), check=Check() if has_check else None, managed=True)
    return _Terms(source="the built-in defaults", spec=spec, interval=ours.interval)


def _timeline(path: Path) -> Timeline:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode()
    except OSError as e:
        raise fail(f"{path}: cannot be read: {e.strerror}", Exit.USAGE) from e
    except UnicodeDecodeError as e:
        raise fail(f"{path}: is not a text in UTF-8", Exit.USAGE) from e
    if len(content) > _MOST_BYTES:
        raise fail(f"{path}: is longer than {_MOST_BYTES} bytes: record less of it", Exit.USAGE)
    try:
        return read(text, file=str(path))
    except Unreadable as e:
        raise fail("\n".join(map(clean, e.lines)), Exit.USAGE) from e


def _terms(path: Path, config: Path | None) -> _Terms:
    """The policy in a preset file; what is wrong with the file ends the command."""
    try:
        [declaration] = validation.declarations([path], config)
    except ShepherdError as e:
        raise typer.Exit(entry.complain(e)) from e
    errors = [each for each in declaration.findings if each.severity is Severity.ERROR]
    if declaration.spec is None or errors:
        found = convert.findings(replace(each, file=str(path)) for each in declaration.findings)
        raise fail("\n".join(tables.finding(each) for each in found), Exit.USAGE)
    preset = Preset(
        name=declaration.name or path.stem,
        spec=declaration.spec,
        source="",
        file=str(path),
    )
    read = declared(convert.preset(preset))
    if read.spec is None:
        raise fail(f"{path}: declares no preset", Exit.USAGE)
    return _Terms(source=str(path), spec=read.spec, interval=max(read.interval or INTERVAL, SOON))
