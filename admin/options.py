"""What commands have in common: options, exit codes, and whom to ask.

Imported by every command, so it imports nothing heavy.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

DEFAULT_ADDRESS: Final = "127.0.0.1:50055"
ENVIRONMENT: Final = "VMSHEPHERD_ADDRESS"


class Exit(IntEnum):
    """What a script learns from the exit code; the epilog of `--help` tells the same."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    STEPS = 10
    INTERRUPTED = 130


class Output(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"


AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help=f"Orchestrator to ask; also {ENVIRONMENT}. Default: {DEFAULT_ADDRESS}.",
    ),
]
OutputOption = Annotated[
    Output | None,
    typer.Option("--output", "-o", help="A table for people, or the API's messages as JSON."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Configuration file of the suite."),
]


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and how to print what is answered."""

    address: str = DEFAULT_ADDRESS
    output: Output = Output.TABLE

    @property
    def is_json(self) -> bool:
        """Whether a script reads it."""
        return self.output is Output.JSON


def asking(context: typer.Context, address: str | None, output: Output | None) -> Asking:
    """The options of the command itself, or else those that stood before it."""
    before = context.obj if isinstance(context.obj, Asking) else Asking()
    return Asking(address=address or before.address, output=output or before.output)


def fail(message: str, code: Exit = Exit.FAILURE) -> typer.Exit:
    """Say what went wrong on standard error; raise what is returned."""
    print(message, file=sys.stderr)
    return typer.Exit(code)
