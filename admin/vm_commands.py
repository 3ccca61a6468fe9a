# ruff: noqa: PLC0415  (what is heavy is imported when a command runs, not for `--help`)
"""`vmshepherd vm …`: the options of its commands; `vms` does the work."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from admin.options import AddressOption, OutputOption, asking

app = typer.Typer(no_args_is_help=True, help="VMs: what they are, why, and what becomes of them.")

Id = Annotated[str, typer.Argument(metavar="VM", show_default=False)]
PresetOption = Annotated[
    str, typer.Option(help="Preset that it must belong to; asked for when left out.")
]
ReasonOption = Annotated[str, typer.Option(help="Why, for the journal.")]


class Status(StrEnum):
    """What a VM may be."""

    PENDING = "pending"
    RUNNING = "running"
    UNHEALTHY = "unhealthy"
    NEARBY_SHUTDOWN = "nearby-shutdown"
    AFTER_TIME_SHUTDOWN = "after-time-shutdown"
    STOPPED = "stopped"
    DELETING = "deleting"
    TERMINATED = "terminated"
    ERROR = "error"
    UNKNOWN = "unknown"
    KEPT = "kept"


@app.command("list")
def list_(
    context: typer.Context,
    *,
    preset: Annotated[str, typer.Option(help="Only VMs of this preset.")] = "",
    status: Annotated[
        list[Status] | None, typer.Option(help="Only VMs of this status; may be repeated.")
    ] = None,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """VMs and what they are."""
    from admin import vms

    statuses = [one.name for one in status or ()]
    vms.list_all(asking(context, address, output), preset=preset, statuses=statuses)


@app.command()
def show(
    context: typer.Context, *, vm: Id, address: AddressOption = None, output: OutputOption = None
) -> None:
    """All that is known of one VM."""
    from admin import vms

    vms.show(asking(context, address, output), vm)


@app.command()
def explain(
    context: typer.Context, *, vm: Id, address: AddressOption = None, output: OutputOption = None
) -> None:
    """Why a VM is what it is, what will be done about it, and what was; also when it is gone."""
    from admin import vms

    vms.explain(asking(context, address, output), vm)


@app.command()
def protect(
    context: typer.Context,
    *,
    vm: Id,
    preset: PresetOption = "",
    reason: ReasonOption = "",
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """Have a VM left alone: never destroyed, rebooted or rebuilt, until it is unprotected."""
    from admin import vms

    vms.protect(asking(context, address, output), vm, preset=preset, reason=reason)


@app.command()
def unprotect(
    context: typer.Context,
    *,
    vm: Id,
    preset: PresetOption = "",
    reason: ReasonOption = "",
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """End the protection that a person asked for; that of the cloud stays."""
    from admin import vms

    vms.unprotect(asking(context, address, output), vm, preset=preset, reason=reason)


@app.command()
def terminate(
    context: typer.Context,
    *,
    vm: Id,
    preset: PresetOption = "",
    reason: ReasonOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Even when it is protected, and above the budget.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    address: AddressOption = None,
    output: OutputOption = None,
) -> None:
    """Have a VM destroyed by its preset's next cycle; the preset then makes a new one."""
    from admin import vms

    chosen = asking(context, address, output)
    vms.terminate(chosen, vm, preset=preset, reason=reason, force=force, is_sure=yes)
