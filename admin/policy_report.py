"""What a back-test comes to, as tables for people and as JSON for scripts.

Pure but for printing; `policies` calls it with what was replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from admin import printing
from admin.printing import Table
from admin.words import lower, span
from orchestrator.backtest.comparison import Comparison, verdict
from orchestrator.backtest.story import Destroyed, Story
from orchestrator.backtest.timeline import Timeline


def show(timeline: Timeline, comparison: Comparison) -> None:
    """One timeline: numbers side by side, and every VM that was destroyed."""
    head = timeline.head
    length = span(timedelta(seconds=head.length))
    start = f"{head.start:%Y-%m-%d %H:%M} UTC"
    about = f"{comparison.name}: preset {head.preset}, {length} from {start}"
    printing.print_lines(["", about], style="bold")
    printing.print_lines([head.note] if head.note else [])
    printing.print_table(_side_by_side(comparison))
    ends = _destroyed(comparison)
    if ends.rows:
        printing.print_heading("DESTROYED")
        printing.print_table(ends)


def _side_by_side(comparison: Comparison) -> Table:
    table = Table(["", "PROPOSED", "PRESENT", "CLAUSE"])
    ours, theirs = comparison.proposed, comparison.present
    for what, value in _NUMBERS.items():
        if what in _ALWAYS_TOLD or {value(ours), value(theirs)} != {"0"}:
            table.add(what, value(ours), value(theirs), "")
    failed = sorted({*ours.failed_creates, *theirs.failed_creates})
    for reason in failed:
        counts = (str(each.failed_creates.get(reason, 0)) for each in (ours, theirs))
        table.add(f"creates refused: {lower(reason)}", *counts, "")
    for code, clause in sorted(_clauses(ours, theirs)):
        table.add(f"held back: {lower(code)}", _held(ours, code), _held(theirs, code), clause)
    return table


# Told even when both are 0: that nothing happened is news too.
_ALWAYS_TOLD: Final = {"VMs destroyed", "VM-seconds below count"}
_NUMBERS: Final[Mapping[str, Callable[[Story], str]]] = {
    "VMs destroyed": lambda story: str(len(story.destroyed)),
    "of them its own": lambda story: str(sum(each.is_made for each in story.destroyed)),
    "VMs made": lambda story: str(story.creates),
    "VMs repaired": lambda story: str(sum(each.method is not None for each in story.treated)),
    "VMs kept for study": lambda story: str(sum(each.method is None for each in story.treated)),
    "VM-seconds below count": lambda story: f"{story.missing_seconds:.0f}",
    "most missing at once": lambda story: str(story.most_missing),
}


def _clauses(*stories: Story) -> set[tuple[str, str]]:
    return {(held.code, held.clause) for story in stories for held in story.held}


def _held(story: Story, code: str) -> str:
    """`12m` for how long it was held back, `3x, 12m` when it was so more than once."""
    for held in story.held:
        if held.code == code:
            lasted = span(timedelta(seconds=held.seconds))
            return lasted if held.times == 1 else f"{held.times}x, {lasted}"
    return ""


def _destroyed(comparison: Comparison) -> Table:
    """Every VM that one of them destroyed, in order of time; what both did alike is one line."""
    table = Table(["AFTER", "POLICY", "VM", "REASON", "CLAUSE", "EVIDENCE"])
    for who, each in sorted(_ends(comparison), key=lambda end: (end[1].at, end[0], end[1].vm_id)):
        after = span(timedelta(seconds=each.at))
        table.add(after, who, each.vm_id, lower(each.reason.name), each.clause, each.evidence)
    return table


def _ends(comparison: Comparison) -> Iterator[tuple[str, Destroyed]]:
    ours, theirs = comparison.proposed.destroyed, comparison.present.destroyed
    for each in ours:
        yield ("both" if each in theirs and not each.is_made else "proposed"), each
    for each in theirs:
        if each not in ours or each.is_made:
            yield "present", each


def message(played: Sequence[tuple[Timeline, Comparison]]) -> dict[str, Any]:
    """All of it for scripts, in the spelling of the API's messages."""
    comparisons = [comparison for _, comparison in played]
    return {
        "verdict": verdict(comparisons),
        "isWorse": any(each.is_worse for each in comparisons),
        "timelines": [_timeline_message(*each) for each in played],
    }


def _timeline_message(timeline: Timeline, comparison: Comparison) -> dict[str, Any]:
    head = timeline.head
    return {
        "file": comparison.name,
        "preset": head.preset,
        "start": head.start.isoformat(),
        "seconds": head.length,
        "proposed": _story_message(comparison.proposed),
        "present": _story_message(comparison.present),
        "condemned": [each.vm_id for each in comparison.condemned],
        "spared": [each.vm_id for each in comparison.spared],
    }


def _story_message(story: Story) -> dict[str, Any]:
    return {
        "destroyed": [
            {
                "seconds": each.at,
                "vmId": each.vm_id,
                "reason": each.reason.name,
                "evidence": each.evidence,
                "clause": each.clause,
                "ofItsOwn": each.is_made,
            }
            for each in story.destroyed
        ],
        "treated": [
            {
                "seconds": each.at,
                "vmId": each.vm_id,
                "method": "KEEP" if each.method is None else each.method.name,
                "evidence": each.evidence,
            }
            for each in story.treated
        ],
        "creates": story.creates,
        "failedCreates": dict(story.failed_creates),
        "heldBack": [
            {
                "code": each.code,
                "clause": each.clause,
                "times": each.times,
                "seconds": each.seconds,
                "message": each.message,
            }
            for each in story.held
        ],
        "missingSeconds": story.missing_seconds,
        "mostMissing": story.most_missing,
    }
