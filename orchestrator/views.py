"""What is known → what clients see. Pure; user data leave as a digest, secrets not at all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

from vmshepherd.orchestrator.v1 import view_pb2 as pb
from vmshepherd_kit.stamps import to_duration, to_timestamp, to_timestamp_if

from .board import Condition, Phase, Shown
from .clauses import clause_for, clause_of, reason_of
from .clients.presets import Declared
from .model import (
    Create,
    Intent,
    Judged,
    Keep,
    Method,
    Pause,
    Plan,
    PresetName,
    Process,
    Refusal,
    Repair,
    Step,
    Terminate,
    VmId,
    VmStatus,
)
from .observe import Seen
from .words import probe_words

_ACTIONS = {
    Create: pb.STEP_ACTION_CREATE,
    Terminate: pb.STEP_ACTION_TERMINATE,
    Keep: pb.STEP_ACTION_KEEP,
}
_REPAIRS = {Method.REBOOT: pb.STEP_ACTION_REBOOT, Method.REBUILD: pb.STEP_ACTION_REBUILD}


def preset_view(name: PresetName, declared: Declared | None, shown: Shown | None) -> pb.PresetView:
    """One preset, with what is known of it here."""
    shown = shown or Shown()
    view = pb.PresetView(
        name=name,
        vms_by_status=_counts(shown.statuses.values()),
        phase=_number(pb.PresetPhase, "PRESET_PHASE", shown.phase),
        conditions=[condition(each) for each in shown.conditions],
        owner=shown.holder,
        fencing_token=shown.fencing_token,
        last_cycle_time=to_timestamp_if(shown.ended),
        next_cycle_time=to_timestamp_if(shown.next_look),
        last_cycle_duration=None if shown.lasted is None else to_duration(shown.lasted),
        provider=shown.provider,
        open_intents=len(shown.plan.memory.intents) if shown.plan else 0,
        outdated=sum(1 for judged in shown.judged if judged.is_outdated),
    )
    if shown.pause is not None:
        view.pause.CopyFrom(_pause(shown.pause))
    if declared is not None:
        declare(view, declared)
    return view


def vm_views(name: PresetName, shown: Shown) -> list[pb.VmView]:
    """The VMs of a preset, in order of their ids."""
    in_order = sorted(shown.judged, key=lambda judged: judged.vm.vm_id)
    return [_vm(name, judged, shown) for judged in in_order]


def stored(
    name: PresetName, declared: Declared | None, shown: Shown
) -> tuple[pb.PresetView, list[pb.VmView]]:
    """The views for the store: without what differs in every cycle."""
    view = preset_view(name, declared, shown)
    for volatile in ("last_cycle_time", "next_cycle_time", "last_cycle_duration"):
        view.ClearField(volatile)
    return view, vm_views(name, shown)


def plan_message(plan: Plan) -> pb.Plan:
    """A plan for people."""
    return pb.Plan(
        steps=[step_message(step) for step in plan.steps],
        refusals=[refusal(each) for each in plan.refusals],
    )


def step_message(step: Step) -> pb.PlanStep:
    """One step for people."""
    message = pb.PlanStep(
        action=_REPAIRS[step.method] if isinstance(step, Repair) else _ACTIONS[type(step)],
        reason=reason_of(step),
        evidence=step.evidence,
        clause=clause_for(step),
    )
    if isinstance(step, Create):
        message.evidence = f"{_named(step.intent)}: {step.evidence}"
    else:
        message.vm_id = step.vm.vm_id
    return message


def refusal(each: Refusal) -> pb.Condition:
    """A refusal for people."""
    return pb.Condition(code=each.code, message=each.message, clause=clause_of(each.code))


def condition(each: Condition) -> pb.Condition:
    """A condition for people."""
    return pb.Condition(
        code=each.code,
        message=each.message,
        since_time=to_timestamp(each.since),
        clause=clause_of(each.code),
    )


def digest(user_data: str) -> str:
    """What may be told of user data."""
    if not user_data:
        return ""
    raw = user_data.encode()
    return f"sha256:{hashlib.sha256(raw).hexdigest()}, {len(raw)} bytes"


def declare(view: pb.PresetView, declared: Declared) -> None:
    """Put in what the preset's source says now, in place of what was there."""
    message = declared.message
    view.count = message.spec.count
    view.provider = view.provider or declared.provider
    view.image = message.spec.image
    view.flavor = message.spec.flavor
    view.check = message.spec.healthcheck.driver
    del view.findings[:]
    view.findings.extend(message.findings)
    view.source = message.source
    view.revision = message.revision
    view.spec_hash = message.spec_hash
    view.user_data_digest = digest(message.spec.user_data)
    view.panel_links.clear()
    view.panel_links.update(message.spec.panel_links)


def _pause(pause: Pause) -> pb.Pause:
    return pb.Pause(
        processes=sorted(_number(pb.Process, "PROCESS", each) for each in pause.processes),
        actor=pause.actor,
        reason=pause.reason,
        since_time=to_timestamp_if(pause.since),
        until_time=to_timestamp_if(pause.until),
    )


def _named(intent: Intent) -> str:
    """The VM to be made, and what of it is not as the preset has it in the first place."""
    attempt = f", attempt {intent.attempts + 1}" if intent.attempts else ""
    chosen = intent.placement
    parts = {"image": chosen.image, "flavor": chosen.flavor, "zone": chosen.zone}
    placed = ", ".join(f"{what} {which}" for what, which in parts.items() if which)
    return f"{intent.name}{attempt}" + (f" ({placed})" if placed else "")


def _vm(name: PresetName, judged: Judged, shown: Shown) -> pb.VmView:
    vm, memory = judged.vm, judged.memory
    kept = judged.status is VmStatus.KEPT and memory.kept_since
    verdict, message = shown.probe_messages.get(vm.vm_id, ("", ""))
    since = shown.since.get(VmId(vm.vm_id))
    return pb.VmView(
        vm_id=vm.vm_id,
        preset=name,
        name=vm.name,
        status=_number(pb.VmStatus, "VM_STATUS", judged.status),
        status_reason=judged.reason,
        cloud_state=vm.cloud_state,
        addresses=vm.addresses,
        provider=vm.provider,
        create_time=to_timestamp_if(vm.created),
        since_time=to_timestamp_if(since[1] if since else None),
        image=vm.image,
        flavor=vm.flavor,
        zone=vm.zone,
        last_verdict=verdict,
        last_probe_message=message,
        failures=memory.failures,
        timed_shutdown_time=to_timestamp_if(vm.shutdown_at),
        protected=vm.protected or vm.vm_id in shown.protections,
        outdated=judged.is_outdated,
        leaving_reason=judged.leaves_for.name if judged.leaves_for else "",
        kept_until_time=to_timestamp_if(kept + shown.keep_failed_time if kept else None),
        request_id=vm.request_id,
        fencing_token=vm.fencing_token,
    )


def _counts(statuses: Iterable[VmStatus]) -> dict[str, int]:
    return dict(sorted(Counter(status.name for status in statuses).items()))


def _number(enum: Any, prefix: str, member: Phase | Process | VmStatus) -> Any:
    """The number of the like-named value of a contract's enum."""
    return enum.Value(f"{prefix}_{member.name}")


def of_plan(plan: Plan, seen: Seen) -> Shown:
    """What would be shown after a plan, for a dry run."""
    return Shown(
        protections=seen.observation.wishes.protections,
        keep_failed_time=seen.observation.spec.policy.keep_failed_time,
        judged=plan.judged,
        plan=plan,
        provider=seen.provider,
        probe_messages=probe_words(seen.observation.probes),
    )
