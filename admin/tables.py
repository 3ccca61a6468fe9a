"""Answers of the admin API as tables and facts: which columns, in which words.

Pure but for `now`, which its callers pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from admin.printing import Table
from admin.words import (
    NOTHING,
    ago,
    clock_time,
    counts,
    enum_word,
    length,
    lower,
    until,
)
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd.preset.v1.preset_pb2 import Finding, Severity
from vmshepherd.runtime.v1.event_pb2 import Event, EventSeverity

Facts = Iterator[tuple[str, object]]

# What people ask of a replica; its other labels are for the other replicas.
_ABOUT = {"host", "pid", "version"}
# Conditions that keep nothing from being as declared.
_ONLY_TOLD = {"KEPT_FOR_STUDY", "OUTDATED"}


def presets(shown: Iterable[view.PresetView]) -> Table:
    """One line a preset: is it as declared, and if not, why not."""
    table = Table(
        ["PRESET", "PHASE", "DECLARED", "RUNNING", "OTHERS", "WHY"], nothing="there is no preset"
    )
    for preset in shown:
        table.add(
            preset.name, phase(preset), preset.count, running(preset), others(preset), why(preset)
        )
    return table


def phase(preset: view.PresetView) -> str:
    """What it is up to."""
    return enum_word(view.PresetPhase, preset.phase, "PRESET_PHASE_")


def running(preset: view.PresetView) -> object:
    """How many of its VMs run; nobody knows while the replica that does cannot be asked."""
    if preset.phase == view.PRESET_PHASE_ELSEWHERE:
        return NOTHING
    return preset.vms_by_status.get("RUNNING", 0)


def others(preset: view.PresetView) -> str:
    """Its VMs that do not run, by their status."""
    return counts({s: n for s, n in preset.vms_by_status.items() if s != "RUNNING"})


def why(preset: view.PresetView) -> str:
    """The first reason for what is or is not done; the others are counted."""
    # What is only told must not hide what a preset is blocked by.
    conditions = sorted(preset.conditions, key=lambda condition: condition.code in _ONLY_TOLD)
    reasons = [c.message or lower(c.code) for c in conditions]
    reasons += [finding(found) for found in preset.findings]
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return reasons[0] + more if reasons else ""


def finding(found: Finding) -> str:
    """`web.yaml:3: count: must be …`, as compilers say it."""
    line = f":{found.line}" if found.line else ""
    place = f"{found.file}{line}: " if found.file or line else ""
    key = f"{found.key}: " if found.key else ""
    weight = "warning: " if found.severity == Severity.SEVERITY_WARNING else ""
    return f"{place}{weight}{key}{found.message}"


def preset_facts(preset: view.PresetView, now: datetime) -> Facts:
    """All that is known of a preset, its VMs apart."""
    yield "preset", preset.name
    yield "phase", phase(preset)
    yield "declared", preset.count
    yield "vms", counts(preset.vms_by_status)
    yield "outdated", preset.outdated or ""
    yield "open creates", preset.open_intents or ""
    yield "provider", preset.provider
    yield "image", preset.image
    yield "flavor", preset.flavor
    yield "check", preset.check
    yield "user data", preset.user_data_digest
    yield "spec hash", preset.spec_hash
    yield "source", preset.source
    yield "revision", preset.revision
    yield "managed by", preset.owner
    yield "fencing token", preset.fencing_token if preset.HasField("fencing_token") else ""
    yield "last cycle", _past(preset, now)
    yield "next cycle", _in(until(preset.next_cycle_time, now))
    if preset.HasField("pause"):
        yield "paused", pause(preset.pause)
    for name, url in sorted(preset.panel_links.items()):
        yield f"link {name}", url
    for reason in preset.conditions:
        yield "why", condition(reason, now)
    for found in preset.findings:
        yield "finding", finding(found)


def preset_summary(preset: view.PresetView, now: datetime) -> Facts:
    """What a preset is up to, in short."""
    wanted = {"preset", "phase", "declared", "vms", "outdated", "open creates", "managed by"}
    wanted |= {"last cycle", "next cycle", "paused", "finding"}
    return ((name, value) for name, value in preset_facts(preset, now) if name in wanted)


def _past(preset: view.PresetView, now: datetime) -> str:
    when = ago(preset.last_cycle_time, now)
    return when if when == NOTHING else f"{when} ago, took {length(preset.last_cycle_duration)}"


def _in(duration: str) -> str:
    return duration if duration == NOTHING else f"in {duration}"


def pause(paused: view.Pause) -> str:
    """`health, rollout by anna since …: "reason"`."""
    words = [enum_word(view.Process, process, "PROCESS_") for process in paused.processes]
    what = ", ".join(words) or "everything"
    end = f" until {clock_time(paused.until_time)}" if paused.HasField("until_time") else ""
    because = f": {paused.reason}" if paused.reason else ""
    return f"{what} by {paused.actor} since {clock_time(paused.since_time)}{end}{because}"


def condition(reason: view.Condition, now: datetime) -> str:
    """One reason, for how long it has been one, and what decided."""
    since = ago(reason.since_time, now)
    told = decided(reason.message or lower(reason.code), reason.clause)
    return told if since == NOTHING else f"{told} (for {since})"


def decided(told: str, clause: str) -> str:
    """`2 of 3 are there [count]`: in brackets the key or the rule that decided."""
    return f"{told} [{clause}]" if clause else told


def conditions(reasons: Iterable[view.Condition], now: datetime) -> Table:
    """One line a reason, by its word."""
    table = Table(
        ["CONDITION", "FOR", "BECAUSE"], nothing="nothing is refused, postponed or waited for"
    )
    for reason in reasons:
        because = decided(reason.message, reason.clause)
        table.add(lower(reason.code), ago(reason.since_time, now), because)
    return table


def plan(planned: view.Plan) -> Table:
    """The steps that the next cycle would take."""
    table = Table(["STEP", "VM", "REASON", "EVIDENCE"], nothing="nothing to do")
    for step in planned.steps:
        evidence = decided(step.evidence, step.clause)
        table.add(action(step), step.vm_id or "(new)", lower(step.reason), evidence)
    return table


def action(step: view.PlanStep) -> str:
    """What a step does."""
    return enum_word(view.StepAction, step.action, "STEP_ACTION_")


def results(reconciled: Iterable[api.ReconcileResult]) -> Table:
    """What became of looking at presets now."""
    table = Table(["PRESET", "RESULT", "PHASE", "WHY"], nothing="there is no preset")
    for result in reconciled:
        known = result.HasField("view")
        table.add(
            result.preset,
            result.status.message or "ok",
            phase(result.view) if known else "",
            why(result.view) if known else "",
        )
    return table


def vms(shown: Iterable[view.VmView], now: datetime) -> Table:
    """One line a VM."""
    table = Table(
        ["PRESET", "VM", "STATUS", "FOR", "ADDRESS", "CHECK", "WHY"], nothing="there is no VM"
    )
    for vm in shown:
        address = vm.addresses[0] if vm.addresses else ""
        verdict = lower(vm.last_verdict)
        since = ago(vm.since_time, now)
        table.add(vm.preset, vm.vm_id, status(vm), since, address, verdict, vm.status_reason)
    return table


def status(vm: view.VmView) -> str:
    """What it is for us."""
    return enum_word(view.VmStatus, vm.status, "VM_STATUS_")


def vm_facts(vm: view.VmView, now: datetime) -> Facts:
    """All that is known of a VM."""
    yield "vm", vm.vm_id
    yield "name", vm.name
    yield "preset", vm.preset
    yield "status", status(vm)
    yield "why", vm.status_reason
    yield "for", ago(vm.since_time, now)
    yield "cloud says", vm.cloud_state
    yield "addresses", ", ".join(vm.addresses)
    yield "check", " ".join([lower(vm.last_verdict), vm.last_probe_message]).strip()
    yield "failures", vm.failures or ""
    yield "provider", vm.provider
    yield "image", vm.image
    yield "flavor", vm.flavor
    yield "zone", vm.zone
    yield "age", ago(vm.create_time, now)
    yield "ends", _in(until(vm.timed_shutdown_time, now))
    yield "leaves", f"to be replaced: {lower(vm.leaving_reason)}" if vm.leaving_reason else ""
    yield "kept until", clock_time(vm.kept_until_time)
    yield "protected", "yes: never destroyed, rebooted or rebuilt by us" if vm.protected else ""
    yield "outdated", "yes: of another spec than the declared one" if vm.outdated else ""
    yield "request id", vm.request_id
    yield "fencing token", vm.fencing_token or ""


def events(shown: Iterable[Event]) -> Table:
    """One line an event, as `event_line` tells it."""
    table = Table(["TIME", "WEIGHT", "PRESET", "VM", "EVENT", "MESSAGE"], nothing="no event")
    for event in shown:
        table.add(*event_cells(event))
    return table


def event_cells(event: Event) -> list[str]:
    """An event as the cells of a row."""
    weight = enum_word(EventSeverity, event.severity, "EVENT_SEVERITY_")
    reason = f" ({lower(event.reason)})" if event.reason else ""
    return [
        clock_time(event.time),
        weight,
        event.preset,
        event.vm_id,
        lower(event.kind) + reason,
        event.message,
    ]


def info_facts(info: api.GetInfoResponse, now: datetime) -> Facts:
    """The suite as a whole."""
    yield "suite", info.suite_id
    yield "version", info.version
    yield "replica", info.owner
    yield "runs for", ago(info.start_time, now)
    yield "presets", counts(info.presets_by_phase)
    yield "configuration", f"loaded {ago(info.config_time, now)} ago"
    yield "not in force", info.config_error


def replicas(info: api.GetInfoResponse) -> Table:
    """Who manages what."""
    headings = ["REPLICA", "SESSION", "PRESETS", "SHARE", "ABOUT"]
    nothing = info.replicas_error or "no replica holds a session"
    table = Table(headings, nothing=nothing)
    for replica in info.replicas:
        known = {key: value for key, value in replica.labels.items() if key in _ABOUT}
        about = ", ".join(f"{key}={value}" for key, value in sorted(known.items()))
        share = f"{replica.share} %"
        table.add(replica.owner, length(replica.age), len(replica.presets), share, about)
    return table


def owners(info: api.GetInfoResponse) -> Table:
    """Who holds which preset, since when, under which token."""
    headings = ["PRESET", "HELD BY", "FOR", "TOKEN"]
    table = Table(headings, nothing=info.replicas_error or "no replica holds a preset")
    held = [(each, replica.owner) for replica in info.replicas for each in replica.presets]
    for each, owner in sorted(held, key=lambda row: row[0].preset):
        table.add(each.preset, owner, length(each.age), each.fencing_token)
    return table


def backends(info: api.GetInfoResponse) -> Table:
    """The services behind, and whether they answer."""
    table = Table(["SERVICE", "ADDRESS", "STATE", "ERROR"], nothing="no service is known")
    for backend in info.backends:
        state = "reachable" if backend.reachable else "unreachable"
        table.add(backend.name, backend.address, state, backend.error)
    return table
