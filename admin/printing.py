"""How answers reach the screen: tables on a terminal, plain aligned lines elsewhere, or JSON.

Text from outside is never understood as markup.  Colours follow the terminal and `NO_COLOR`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from admin.words import NOTHING, clean

# What a word means for the reader, wherever it stands.
_STYLES: Final = {
    "steady": "green",
    "running": "green",
    "healthy": "green",
    "converging": "yellow",
    "pending": "yellow",
    "waiting": "yellow",
    "paused": "yellow",
    "warning": "yellow",
    "nearby shutdown": "yellow",
    "blocked": "red",
    "unhealthy": "red",
    "error": "red",
    "unreachable": "red",
    "removed": "yellow",
    "kept": "yellow",
    "create": "green",
    "reboot": "yellow",
    "rebuild": "yellow",
    "keep": "yellow",
    "terminate": "red",
}


@dataclass
class Table:
    """Rows of words under headings."""

    headings: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    nothing: str = "nothing to show"
    """What is said of an empty table."""

    def add(self, *cells: object) -> None:
        """One row; what is empty is shown as `-`."""
        self.rows.append([clean(str(cell)) or NOTHING for cell in cells])


def console() -> Console:
    """The screen; asked anew each time, because tests and pipes replace standard output."""
    return Console(highlight=False, markup=False, emoji=False)


def print_json(message: Message, *, indent: int | None = 2) -> None:
    """An API message as protobuf JSON, empty fields included, so that scripts find their lists."""
    print(_json(message, indent=indent))


def print_json_of(messages: Mapping[str, Message | str]) -> None:
    """Several API messages as one JSON object, by names; texts as they are."""
    told = {
        name: each if isinstance(each, str) else json.loads(_json(each, indent=None))
        for name, each in messages.items()
    }
    print(json.dumps(told, indent=2))


def print_table(table: Table) -> None:
    """The table, or the sentence that stands for an empty one."""
    screen = console()
    if not table.rows:
        print(table.nothing, file=sys.stderr)
    elif screen.is_terminal:
        screen.print(drawn(table))
    else:
        print("\n".join(plain([table.headings, *table.rows])))


def print_section(heading: str, table: Table) -> None:
    """A table under a heading; an empty one is told there, as one of several answers."""
    print_heading(heading)
    if table.rows:
        print_table(table)
    else:
        print_lines([table.nothing])


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values below one another; what is empty is left out."""
    told = [(name, clean(str(value))) for name, value in facts]
    told = [(name, value) for name, value in told if value and value != NOTHING]
    width = max((len(name) for name, _ in told), default=0)
    screen = console()
    for name, value in told:
        if screen.is_terminal:
            screen.print(Text(f"{name:<{width}}  ", style="dim") + styled(value), soft_wrap=True)
        else:
            print(f"{name:<{width}}  {value}")


def print_heading(heading: str) -> None:
    """A line above what follows, with air before it."""
    console().print(Text(f"\n{heading}", style="bold"))


def print_lines(lines: Iterable[str], *, style: str = "") -> None:
    """Sentences, one a line, as they are."""
    screen = console()
    for line in lines:
        screen.print(Text(clean(line), style=style), soft_wrap=True)


def _json(message: Message, *, indent: int | None) -> str:
    return MessageToJson(message, indent=indent, always_print_fields_with_no_presence=True)


def drawn(table: Table) -> RichTable:
    """The table for a terminal: only the last column is wrapped."""
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    last = len(table.headings) - 1
    for index, heading in enumerate(table.headings):
        grid.add_column(heading, overflow="fold", no_wrap=index != last)
    for row in table.rows:
        grid.add_row(*(styled(cell) for cell in row))
    return grid


def plain(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as aligned lines that are never wrapped or cut."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def styled(word: str) -> Text:
    """The word in the colour of its meaning."""
    return Text(word, style=_STYLES.get(word, ""))
