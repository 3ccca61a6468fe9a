# ruff: noqa: PLC0415  (what is heavy is imported when a command runs, not for `--help`)
"""`vmshepherd preset …`: the options of its commands; `presets` does the work."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from admin.options import AddressOption, ConfigOption, OutputOption, asking

app = typer.Typer(no_args_is_help=True, help="Presets: groups of VMs, kept as declared.")

Name = Annotated[str, typer.Argument(show_default=False)]


class Process(StrEnum):
    """Parts of the work that can be paused one by one."""

    CREATE = "create"
    REPLACE = "replace"
    HEALTH = "health"
    ROLLOUT = "rollout"
    SCALE_IN = "scale-in"


@app.command("list")
def list_(
    context: typer.Context, *, address: AddressOption = None, output: OutputOption = None
) -> None:
    """Every preset: as declared or not, and why not; faults with file, line and key."""
    from admin import presets

    presets.list_all(asking(context, address, output))


@app.command()
def show(
    context: typer.Context,
    *,
    preset: Name,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """One preset and its VMs."""
    from admin import presets

    presets.show(asking(context, address, output), preset)


@app.command()
def plan(
    context: typer.Context,
    *,
    preset: Name,
    detailed: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 10 when there are steps.")
    ] = False,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """What the next cycle would do, and why not more; in brackets what decided. Changes nothing."""
    from admin import presets

    presets.plan(asking(context, address, output), preset, detailed=detailed)


@app.command()
def explain(
    context: typer.Context,
    *,
    preset: Name,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """Why a preset is as it is, and why not otherwise: conditions, next cycle, what led there."""
    from admin import why

    why.explain(asking(context, address, output), preset)


@app.command()
def validate(
    context: typer.Context,
    *,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", show_default=False)],
    config: ConfigOption = None,
    output: OutputOption = None,
) -> None:
    """Check preset files, without a suite; -c brings its defaults. Exits with 1 on errors."""
    from admin import validation

    validation.validate(asking(context, None, output), files, config)


@app.command()
def pause(
    context: typer.Context,
    *,
    preset: Name,
    process: Annotated[
        list[Process] | None, typer.Option(help="Pause only this part; may be repeated.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for others to read.")] = "",
    duration: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="For so long: 30m, 1h, 2d.")
    ] = None,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """Stop all or part of the work on a preset until it is resumed. Its VMs run on."""
    from admin import presets

    parts = [part.name for part in process or ()]
    chosen = asking(context, address, output)
    presets.pause(chosen, preset, parts=parts, reason=reason, duration=duration)


@app.command()
def resume(
    context: typer.Context,
    *,
    preset: Name,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """End a pause; try again what the preset suspended or stopped by itself."""
    from admin import presets

    presets.resume(asking(context, address, output), preset)


@app.command()
def reconcile(
    context: typer.Context,
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PRESET]...", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Answer after that cycle.")] = False,
    approve: Annotated[
        bool,
        typer.Option(
            "--approve-count",
            help="Approve a count, or a removal, that is held back because it is too much at once.",
        ),
    ] = False,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """Look at presets now instead of at their time; at all of them when none is named."""
    from admin import presets

    chosen = asking(context, address, output)
    presets.reconcile(chosen, names or [], wait=wait, approve=approve)
