"""How `vmshepherd doctor` tells what it finds: a line a check as it is made, or all as JSON.

`doctor` adds findings; nothing is judged here but the exit code.  On a terminal long lines are
broken between words; elsewhere each stays whole, for `grep`.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from rich.text import Text

from admin import printing
from admin.options import Asking, Exit
from admin.words import clean

_WIDTHS: Final = (9, 14, 14)
# Where a line goes on that is broken: beneath the subject, so that the statuses stand alone.
_HANGING: Final = " " * (_WIDTHS[0] + 1)


class Status(StrEnum):
    """What came of a check."""

    OK = "ok"
    WRONG = "wrong"
    UNCHECKED = "unchecked"


_STYLES: Final = {Status.OK: "", Status.WRONG: "red", Status.UNCHECKED: "yellow"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: of what, which, what came of it, and what a person can do."""

    subject: str
    check: str
    status: Status
    message: str
    way_out: str = ""


class Report:
    """All findings of one run."""

    def __init__(self, asking: Asking) -> None:
        self._is_json = asking.is_json
        self._findings: list[Finding] = []

    def add(self, *findings: Finding) -> None:
        """Tell of checks that are made."""
        self._findings += findings
        if not self._is_json:
            screen = printing.console()
            width = screen.width if screen.is_terminal else None
            for finding in findings:
                for line in lines(finding, width):
                    screen.print(Text(line, style=_STYLES[finding.status]), soft_wrap=True)

    def close(self) -> Exit:
        """Sum up; the exit code."""
        numbers: dict[Status, int] = dict.fromkeys(Status, 0)
        for finding in self._findings:
            numbers[finding.status] += 1
        if self._is_json:
            sums = {status.value: number for status, number in numbers.items()}
            told = {"checks": [asdict(each) for each in self._findings], **sums}
            print(json.dumps(told, indent=2))
        else:
            printing.print_lines(["", _sum(numbers)])
        return Exit.FAILURE if numbers[Status.WRONG] else Exit.OK


def lines(finding: Finding, width: int | None) -> list[str]:
    """A finding as people read it: no line longer than `width`, where there is one."""
    words = (finding.status, finding.subject, finding.check)
    columns = [f"{word:<{width}}" for word, width in zip(words, _WIDTHS, strict=True)]
    found = _broken(f"{' '.join(columns)} {clean(finding.message)}", width, _HANGING)
    if finding.way_out:
        margin = _HANGING if width else " " * (sum(_WIDTHS) + len(_WIDTHS))
        found += _broken(f"{margin}→ {clean(finding.way_out)}", width, f"{margin}  ")
    return found


def _broken(line: str, width: int | None, hanging: str) -> list[str]:
    """Broken between words alone: addresses and ids are to be copied."""
    if width is None:
        return [line]
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sum(numbers: dict[Status, int]) -> str:
    checks = f"{sum(numbers.values())} checks"
    unchecked = numbers[Status.UNCHECKED]
    more = f", {unchecked} could not be made" if unchecked else ""
    wrong = numbers[Status.WRONG]
    return f"{checks}: {f'{wrong} wrong' if wrong else 'nothing wrong'}{more}"
