"""How `vmshepherd doctor` tells what it finds: a line a check as it is made, or all as JSON.

`doctor` adds findings; nothing is judged here but the exit code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from rich.text import Text

from admin import printing
from admin.options import Asking, Exit
from admin.words import clean

_WIDTHS: Final = (9, 14, 14)


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
            for finding in findings:
                for line in _lines(finding):
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


def _lines(finding: Finding) -> list[str]:
    words = (finding.status, finding.subject, finding.check)
    columns = [f"{word:<{width}}" for word, width in zip(words, _WIDTHS, strict=True)]
    lines = [f"{' '.join(columns)} {clean(finding.message)}"]
    if finding.way_out:
        lines.append(f"{'':<{sum(_WIDTHS) + len(_WIDTHS)}}→ {clean(finding.way_out)}")
    return lines


def _sum(numbers: dict[Status, int]) -> str:
    checks = f"{sum(numbers.values())} checks"
    unchecked = numbers[Status.UNCHECKED]
    more = f", {unchecked} could not be made" if unchecked else ""
    wrong = numbers[Status.WRONG]
    return f"{checks}: {f'{wrong} wrong' if wrong else 'nothing wrong'}{more}"
