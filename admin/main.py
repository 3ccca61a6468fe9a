# ruff: noqa: PLC0415  (what is heavy is imported when a command runs, not for `--help`)
"""The command line: `vmshepherd COMMAND`, and `vmshepherd -c FILE`, which is `up -c FILE`."""

from __future__ import annotations

import errno
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import vmshepherd_kit  # noqa: F401  it speaks to gRPC's environment, so it comes before gRPC
from admin import policy_commands, preset_commands, vm_commands
from admin.options import (
    DEFAULT_ADDRESS,
    ENVIRONMENT,
    AddressOption,
    Asking,
    ConfigOption,
    Exit,
    Output,
    OutputOption,
    asking,
)

_EPILOG = (
    "Exit codes: 0 done; 1 refused, failed, or findings; 2 wrong usage or configuration; "
    "3 no such preset or VM; 4 nobody answers; "
    "10 steps found by `preset plan --detailed-exitcode`; 130 interrupted."
)

# What writing to a full disk, or to a device that fails, ends with.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO}

# Boxes and colours for people; plain lines for pipes, and for `--help` in a hurry.
app = typer.Typer(
    name="vmshepherd",
    help="Keeps groups of virtual machines as declared.",
    epilog=_EPILOG,
    invoke_without_command=True,
    rich_markup_mode="rich" if sys.stdout and sys.stdout.isatty() else None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(no_args_is_help=True, help="The configuration file.")

app.add_typer(preset_commands.app, name="preset")
app.add_typer(vm_commands.app, name="vm")
app.add_typer(policy_commands.app, name="policy")
app.add_typer(config_app, name="config")


class Service(StrEnum):
    """What can be served alone."""

    PRESET = "preset"
    RUNTIME = "runtime"
    IAAS = "iaas"
    HEALTH = "health"
    ORCHESTRATOR = "orchestrator"


EphemeralOption = Annotated[
    bool, typer.Option("--ephemeral", help="Remove all VMs of the suite at the end.")
]


@app.callback()
def root(
    context: typer.Context,
    *,
    config: ConfigOption = None,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """Keeps groups of virtual machines as declared."""
    context.obj = Asking(
        address=address or os.environ.get(ENVIRONMENT) or DEFAULT_ADDRESS,
        output=output or Output.TABLE,
    )
    if context.invoked_subcommand is not None:
        return
    if config is None:
        print(context.get_help())
        raise typer.Exit(Exit.USAGE)
    _up(config, is_ephemeral=False)


@app.command()
def up(*, config: ConfigOption = None, ephemeral: EphemeralOption = False) -> None:
    """Run the whole suite in this process. Its VMs go on running when it ends."""
    _up(config, is_ephemeral=ephemeral)


@app.command()
def serve(service: Service, config: ConfigOption = None) -> None:
    """Run one service, by its section of the file."""
    from admin import services

    raise typer.Exit(services.run(service.value, config))


@app.command()
def events(  # noqa: PLR0913  its options
    context: typer.Context,
    *,
    preset: Annotated[str, typer.Option(help="Only of this preset.")] = "",
    vm: Annotated[str, typer.Option(help="Only of this VM.")] = "",
    kind: Annotated[
        list[str] | None, typer.Option(help="Only of this kind; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not older than: 30m, 1h, 2d.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Most events of the past.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with each event as it happens.")
    ] = False,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """What happened and why, the newest at the bottom."""
    from admin import journal

    chosen = journal.chosen_events(preset, vm, kind or [], since)
    show = journal.follow if follow else journal.list_newest
    show(asking(context, address, output), chosen, limit=limit)


@app.command()
def info(
    context: typer.Context, *, address: AddressOption = None, output: OutputOption = None
) -> None:
    """The suite as a whole: replicas, services, the configuration in force."""
    from admin import overview

    overview.info(asking(context, address, output))


@app.command()
def doctor(
    context: typer.Context,
    *,
    config: ConfigOption = None,
    preset: Annotated[str, typer.Option(help="Try the spec of this preset alone.")] = "",
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """What is wrong with services, credentials, quotas and presets, before a VM is made."""
    from admin import doctor as examination

    chosen = asking(context, address, output)
    named = address or os.environ.get(ENVIRONMENT)
    examination.examine(chosen, config, preset=preset, orchestrator=named)


@app.command()
def version(context: typer.Context, output: OutputOption = None) -> None:
    """The version of this command."""
    from importlib.metadata import version as version_of

    ours = version_of("vmshepherd")
    print(json.dumps({"version": ours}) if asking(context, None, output).is_json else ours)


@config_app.command()
def check(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    output: OutputOption = None,
) -> None:
    """Check a configuration file, each section by its service and its drivers."""
    from admin import validation

    validation.check_configuration(asking(context, None, output), file)


def _up(config: Path | None, *, is_ephemeral: bool) -> None:
    from admin import suite

    raise typer.Exit(suite.run(config, is_ephemeral=is_ephemeral))


def main() -> None:
    """Run the command of this process."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        # `vmshepherd events | head`: the reader has seen enough.
        _write_no_more()
    except OSError as e:
        if e.errno not in _UNWRITABLE or e.filename:
            raise
        _write_no_more()
        sys.exit(f"the output cannot be written: {e.strerror}")


def _write_no_more() -> None:
    """Let what is still to be flushed go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
