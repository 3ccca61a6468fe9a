"""Short words for the values that decisions are made of: for tests of the orchestrator's core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.model import (
    Check,
    Judged,
    Memory,
    Observation,
    Pause,
    Plan,
    Policy,
    PresetName,
    Probe,
    Process,
    Reason,
    RequestId,
    Spec,
    Verdict,
    Vm,
    VmId,
    VmMemory,
    VmState,
    VmStatus,
    Wishes,
)

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=3)
SPEC = "spec-1"
FORMER = "spec-0"

HEALTHY = Probe(Verdict.HEALTHY)
UNHEALTHY = Probe(Verdict.UNHEALTHY, "connection refused")
UNKNOWN = Probe(Verdict.UNKNOWN, "no descriptor left")

# What is remembered of a VM that has long served well, and of one that is condemned.
SERVING = VmMemory(
    first_seen=LONG_AGO,
    first_running=LONG_AGO,
    passes=2,
    was_healthy=True,
    ready_since=LONG_AGO,
    was_proved=True,
)
CONDEMNED = replace(
    SERVING,
    failures=3,
    failing_since=NOW - timedelta(minutes=5),
    passes=0,
    is_unhealthy=True,
    ready_since=None,
)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def vm_id(name: str) -> VmId:
    return VmId(name)


def spec(count: int = 3, *, check: Check | None = None, **policy: Any) -> Spec:
    return Spec(
        name=PresetName("web"),
        count=count,
        spec_hash=SPEC,
        check=check,
        policy=Policy(**policy),
    )


def checked(count: int = 3, *, observe_only: bool = False, **policy: Any) -> Spec:
    return spec(count, check=Check(observe_only=observe_only), **policy)


def vm(name: str, state: VmState = VmState.RUNNING, **more: Any) -> Vm:
    facts: dict[str, Any] = {
        "name": name,
        "spec_hash": SPEC,
        "created": LONG_AGO,
        "request_id": RequestId(f"request-of-{name}"),
    }
    return Vm(vm_id=VmId(name), state=state, **{**facts, **more})


def vms(names: str, **more: Any) -> tuple[Vm, ...]:
    """A running VM for each letter; the later in the alphabet, the younger."""
    return tuple(vm(each, **{"created": LONG_AGO + seconds(ord(each)), **more}) for each in names)


def outdated(names: str) -> tuple[Vm, ...]:
    """The same, of the spec before."""
    return vms(names, spec_hash=FORMER)


def codes(plan: Plan) -> set[str]:
    """What a plan refuses or postpones."""
    return {each.code for each in plan.refusals}


def said(plan: Plan, code: str) -> str:
    """The words for it."""
    return next(each.message for each in plan.refusals if each.code == code)


def ended(plan: Plan) -> dict[str, Reason]:
    """Who goes, and why."""
    return {str(step.vm.vm_id): step.reason for step in plan.terminations}


def leaving(plan: Plan) -> dict[str, Reason]:
    """Who shall go, now or later, and why."""
    return {str(each.vm.vm_id): each.leaves_for for each in plan.judged if each.leaves_for}


def paused(*processes: Process) -> Wishes:
    """Work that somebody stopped."""
    pause = Pause(processes=frozenset(processes), actor="ann", reason="looking into it")
    return Wishes(pause=pause)


def memories(names: Iterable[str], memory: VmMemory = SERVING) -> dict[VmId, VmMemory]:
    return {VmId(name): memory for name in names}


def probes(**verdicts: Probe) -> dict[VmId, Probe]:
    return {VmId(name): probe for name, probe in verdicts.items()}


def seen(
    what: Spec,
    present: Iterable[Vm] = (),
    *,
    remembered: Mapping[VmId, VmMemory] | None = None,
    memory: Memory | None = None,
    **more: Any,
) -> Observation:
    present = tuple(present)
    if memory is None:
        memory = Memory(accepted_count=what.count)
    if remembered is None:
        remembered = {each.vm_id: SERVING for each in present}
    facts: dict[str, Any] = {"now": NOW, "fencing_token": 7, "suite_id": "suite"}
    if what.check is not None and "probes" not in more:
        facts["probes"] = {each.vm_id: HEALTHY for each in present}
    return Observation(
        spec=what,
        vms=present,
        memory=replace(memory, vms={**remembered, **memory.vms}),
        **{**facts, **more},
    )


def judged(name: str, status: VmStatus = VmStatus.RUNNING, **more: Any) -> Judged:
    memory = more.pop("memory", SERVING)
    judgement = {key: more.pop(key) for key in ("is_outdated", "leaves_for") if key in more}
    return Judged(vm=vm(name, **more), status=status, reason="as given", memory=memory, **judgement)
