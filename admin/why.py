"""What `vmshepherd preset explain` asks and prints: why a preset is as it is, and why not else.

Put together of what any client may ask: the preset, the plan of its next cycle, its journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from admin import client, presets, printing, tables
from admin.options import Asking
from admin.words import clean
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.runtime.v1.event_pb2 import EventFilter
from vmshepherd_kit import dial
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.errors import ShepherdError

# What decided about a preset of late; what was merely seen of its VMs, `vmshepherd events` tells.
_TELLING: Final = (
    "CONDITION_SET",
    "CONDITION_CLEARED",
    "COUNT_APPROVED",
    "CREATE_FAILED",
    "CREATE_UNKNOWN",
    "PRESET_EDITED",
    "PRESET_ENDED",
    "PRESET_PAUSED",
    "PRESET_RESUMED",
    "REPAIR_FAILED",
    "TERMINATE_FAILED",
    "TERMINATION_WISHED",
    "VM_CREATING",
    "VM_GONE",
    "VM_KEPT",
    "VM_PROTECTED",
    "VM_REBOOTING",
    "VM_REBUILDING",
    "VM_TERMINATING",
    "VM_UNPROTECTED",
)
_LIMIT: Final = 20


@dataclass(frozen=True)
class _Answers:
    shown: api.GetPresetResponse
    planned: api.PlanPresetResponse
    no_plan: str
    past: api.ListEventsResponse


def explain(asking: Asking, preset: str) -> None:
    """What keeps a preset from being as declared, what comes next, and what led to it."""
    found = client.answer(asking, lambda stub: _ask(stub, preset))
    if asking.is_json:
        return printing.print_json_of(
            {
                "preset": found.shown.preset,
                "plan": found.planned.plan,
                "planError": found.no_plan,
                "events": found.past,
            }
        )
    now = SystemClock().wall()
    printing.print_facts(tables.preset_summary(found.shown.preset, now))
    printing.print_section("WHY", tables.conditions(found.shown.preset.conditions, now))
    if found.no_plan:
        printing.print_heading("NEXT")
        printing.print_lines([f"what comes next cannot be told: {clean(found.no_plan)}"])
    else:
        printing.print_section("NEXT", tables.plan(found.planned.plan))
        presets.print_refusals(_not_told(found))
    return printing.print_section("EVENTS", tables.events(found.past.events))


async def _ask(stub: OrchestratorServiceStub, preset: str) -> _Answers:
    shown = await dial.ask(stub.GetPreset, api.GetPresetRequest(preset=preset))
    planned, no_plan = api.PlanPresetResponse(), ""
    try:
        request = api.PlanPresetRequest(preset=preset)
        planned = await dial.ask(stub.PlanPreset, request, deadline=presets.A_CYCLE)
    except ShepherdError as e:
        # A cloud that is away is the very thing to be explained.
        no_plan = e.message
    chosen = EventFilter(preset=preset, kinds=_TELLING)
    return _Answers(shown, planned, no_plan, await client.list_events(stub, chosen, limit=_LIMIT))


def _not_told(found: _Answers) -> view.Plan:
    """The plan without the refusals that stand among the conditions already."""
    told = {each.code for each in found.shown.preset.conditions}
    plan = found.planned.plan
    refusals = [each for each in plan.refusals if each.code not in told]
    return view.Plan(refusals=refusals, next_look=plan.next_look)
