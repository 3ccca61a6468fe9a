"""What `vmshepherd preset …` asks and prints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import typer

from admin import client, printing, tables
from admin.failures import exit_code
from admin.options import Asking, Exit, fail
from admin.words import length
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd.orchestrator.v1.view_pb2 import Process
from vmshepherd_kit import dial, settings, stamps, status
from vmshepherd_kit.clock import SystemClock

# A cycle asks clouds and waits for VMs' probes: longer than any other answer.
A_CYCLE: Final = timedelta(minutes=2)


def list_all(asking: Asking) -> None:
    """All presets, then all faults of files."""
    answer = client.answer(asking, client.list_presets)
    if asking.is_json:
        return printing.print_json(answer)
    printing.print_table(tables.presets(answer.presets))
    faults = [f"{p.name}: {tables.finding(found)}" for p in answer.presets for found in p.findings]
    faults += [error.message for error in answer.source_errors]
    if faults:
        printing.print_heading("FAULTS OF FILES AND SOURCES")
        printing.print_lines(faults)
    return None


def show(asking: Asking, preset: str) -> None:
    """One preset and its VMs."""
    request = api.GetPresetRequest(preset=preset)
    answer = client.answer(asking, lambda stub: dial.ask(stub.GetPreset, request))
    if asking.is_json:
        return printing.print_json(answer)
    now = SystemClock().wall()
    printing.print_facts(tables.preset_facts(answer.preset, now))
    printing.print_heading("VMS")
    return printing.print_table(tables.vms(answer.vms, now))


def plan(asking: Asking, preset: str, *, detailed: bool) -> None:
    """The steps, and the reasons against more."""
    request = api.PlanPresetRequest(preset=preset)
    answer = client.answer(
        asking, lambda stub: dial.ask(stub.PlanPreset, request, deadline=A_CYCLE)
    )
    if asking.is_json:
        printing.print_json(answer)
    else:
        printing.print_table(tables.plan(answer.plan))
        print_refusals(answer.plan)
    if detailed and answer.plan.steps:
        raise typer.Exit(Exit.STEPS)


def pause(
    asking: Asking, preset: str, *, parts: Sequence[str], reason: str, duration: str | None
) -> None:
    """Pause, and say what is in force now."""
    request = api.PausePresetRequest(
        preset=preset,
        processes=[Process.Value(f"PROCESS_{part}") for part in parts],
        actor=client.actor(),
        reason=reason,
        duration=stamps.to_duration(_length(duration)) if duration else None,
    )
    answer = client.answer(asking, lambda stub: dial.ask(stub.PausePreset, request))
    if asking.is_json:
        return printing.print_json(answer)
    return printing.print_lines([f"{preset} is paused: {tables.pause(answer.pause)}"])


def resume(asking: Asking, preset: str) -> None:
    """Resume, and say whether there was a pause."""
    request = api.ResumePresetRequest(preset=preset, actor=client.actor())
    answer = client.answer(asking, lambda stub: dial.ask(stub.ResumePreset, request))
    if asking.is_json:
        return printing.print_json(answer)
    if answer.was_paused:
        return printing.print_lines([f"{preset} is managed again"])
    said = "was not paused; what it had suspended by itself is tried again"
    return printing.print_lines([f"{preset} {said}"])


def reconcile(asking: Asking, names: Sequence[str], *, wait: bool, approve: bool) -> None:
    """Have presets looked at; fails when one of them could not be."""
    if approve and not names:
        raise fail("--approve-count needs the names of the presets", Exit.USAGE)
    request = api.ReconcilePresetRequest(
        presets=names, wait=wait, approve_count=approve, actor=client.actor()
    )
    answer = client.answer(
        asking, lambda stub: dial.ask(stub.ReconcilePreset, request, deadline=A_CYCLE)
    )
    if asking.is_json:
        printing.print_json(answer)
    else:
        printing.print_table(tables.results(answer.results))
    errors = [error for r in answer.results if (error := status.from_proto(r.status))]
    if errors:
        raise typer.Exit(exit_code(errors[0]))


def print_refusals(planned: view.Plan) -> None:
    """What is not done, and when it is looked at again."""
    now = SystemClock().wall()
    refusals = [tables.condition(refusal, now) for refusal in planned.refusals]
    printing.print_lines(f"not more: {refusal}" for refusal in refusals)
    if planned.HasField("next_look"):
        printing.print_lines([f"next look: in {length(planned.next_look)}"])


def _length(text: str) -> timedelta:
    try:
        return settings.duration(text)
    except ValueError as e:
        raise fail(f"--for {text!r}: {e}", Exit.USAGE) from e
