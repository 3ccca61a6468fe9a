"""What `vmshepherd vm …` asks and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from admin import client, printing, tables
from admin.options import Asking, Exit, fail
from admin.words import lower
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.view_pb2 import VmStatus
from vmshepherd_kit import dial
from vmshepherd_kit.clock import SystemClock


def list_all(asking: Asking, *, preset: str, statuses: Sequence[str]) -> None:
    """The VMs that are meant."""
    wanted = [VmStatus.Value(f"VM_STATUS_{status}") for status in statuses]
    answer = client.answer(
        asking, lambda stub: client.list_vms(stub, preset=preset, statuses=wanted)
    )
    if asking.is_json:
        return printing.print_json(answer)
    return printing.print_table(tables.vms(answer.vms, SystemClock().wall()))


def show(asking: Asking, vm_id: str) -> None:
    """One VM."""
    answer = _get(asking, vm_id)
    if asking.is_json:
        return printing.print_json(answer)
    return printing.print_facts(tables.vm_facts(answer.vm, SystemClock().wall()))


def explain(asking: Asking, vm_id: str) -> None:
    """One VM with its past and its future."""
    request = api.ExplainVmRequest(vm_id=vm_id)
    answer = client.answer(asking, lambda stub: dial.ask(stub.ExplainVm, request))
    if asking.is_json:
        return printing.print_json(answer)
    now = SystemClock().wall()
    if answer.HasField("vm"):
        printing.print_facts(tables.vm_facts(answer.vm, now))
    else:
        printing.print_lines([f"{vm_id} is not seen any more; this is what is remembered of it."])
    printing.print_heading("NEXT")
    printing.print_lines([_next(answer)])
    printing.print_lines(f"why not more: {tables.condition(c, now)}" for c in answer.conditions)
    printing.print_heading("EVENTS")
    return printing.print_table(tables.events(answer.events))


def terminate(
    asking: Asking, vm_id: str, *, preset: str, reason: str, force: bool, is_sure: bool
) -> None:
    """Have it destroyed, after asking once more."""
    preset = preset or _get(asking, vm_id).vm.preset
    if not is_sure:
        _be_sure(f"Terminate {vm_id} of preset {preset}, which then makes a new one?")
    request = api.TerminateVmRequest(
        preset=preset, vm_id=vm_id, actor=client.actor(), reason=reason, force=force
    )
    answer = client.answer(asking, lambda stub: dial.ask(stub.TerminateVm, request))
    if asking.is_json:
        return printing.print_json(answer)
    said = "will be terminated by the next cycle" if answer.existed else "was gone already"
    return printing.print_lines([f"{vm_id} of {preset} {said}"])


def protect(asking: Asking, vm_id: str, *, preset: str, reason: str) -> None:
    """Have it left alone."""
    answer = _protect(asking, vm_id, preset=preset, reason=reason, is_on=True)
    if answer is not None:
        again = "was protected already, and still is" if answer.was_protected else "is protected"
        printing.print_lines([f"{vm_id} {again}: never destroyed, rebooted or rebuilt by us"])


def unprotect(asking: Asking, vm_id: str, *, preset: str, reason: str) -> None:
    """End that."""
    answer = _protect(asking, vm_id, preset=preset, reason=reason, is_on=False)
    if answer is not None:
        said = "is protected no more" if answer.was_protected else "was protected by nobody"
        printing.print_lines([f"{vm_id} {said}; what the cloud protects stays so"])


def _protect(
    asking: Asking, vm_id: str, *, preset: str, reason: str, is_on: bool
) -> api.ProtectVmResponse | None:
    """The answer that a person is still to be told; None when it is printed for a script."""
    request = api.ProtectVmRequest(
        preset=preset or _get(asking, vm_id).vm.preset,
        vm_id=vm_id,
        protected=is_on,
        actor=client.actor(),
        reason=reason,
    )
    answer = client.answer(asking, lambda stub: dial.ask(stub.ProtectVm, request))
    if not asking.is_json:
        return answer
    printing.print_json(answer)
    return None


def _get(asking: Asking, vm_id: str) -> api.GetVmResponse:
    request = api.GetVmRequest(vm_id=vm_id)
    return client.answer(asking, lambda stub: dial.ask(stub.GetVm, request))


def _next(answer: api.ExplainVmResponse) -> str:
    if not answer.HasField("step"):
        return "nothing is going to be done about it"
    step = answer.step
    told = f"{tables.action(step)}, {lower(step.reason)}: {step.evidence}"
    return tables.decided(told, step.clause)


def _be_sure(question: str) -> None:
    if not sys.stdin.isatty():
        raise fail("without a terminal to ask on, say --yes", Exit.USAGE)
    if not typer.confirm(question, err=True):
        raise typer.Exit(Exit.FAILURE)
