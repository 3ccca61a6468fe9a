# ruff: noqa: PLC0415  (what is heavy is imported when a command runs, not for `--help`)
"""`vmshepherd policy …`: the options of its commands; `policies` and `recording` do the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from admin.options import AddressOption, ConfigOption, OutputOption, asking

app = typer.Typer(no_args_is_help=True, help="Policies: what another one would have done.")


@app.command()
def backtest(
    context: typer.Context,
    *,
    timelines: Annotated[list[Path], typer.Argument(metavar="TIMELINE...", show_default=False)],
    preset: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Preset file with the proposed policy.", show_default=False
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Preset file with the present policy. Default: the built-in defaults.",
        ),
    ] = None,
    fail_if_more: Annotated[
        bool,
        typer.Option(
            "--fail-if-more",
            help="Exit with 1 when the proposed policy destroys what others spare.",
        ),
    ] = False,
    config: ConfigOption = None,
    output: OutputOption = None,
) -> None:
    """Replay what happened against a proposed policy: whom would it have destroyed, and why?

    Needs no suite; -c brings the defaults of presets. Nothing is changed anywhere.
    """
    from admin import policies

    policies.backtest(
        asking(context, None, output),
        timelines,
        proposed=preset,
        present=against,
        config=config,
        fail_if_more=fail_if_more,
    )


@app.command()
def record(
    context: typer.Context,
    *,
    preset: Annotated[str, typer.Argument(show_default=False)],
    since: Annotated[str, typer.Option(metavar="TIME", help="How far back: 30m, 1h, 2d.")] = "24h",
    address: AddressOption = None,
) -> None:
    """Write a preset's own past as a timeline, for `policy backtest`, on standard output."""
    from admin import recording

    recording.record(asking(context, address, None), preset, since=since)
