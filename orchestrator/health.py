"""Pure: what each VM is for us. The cloud's state, the clock and the check become one status with a
reason.

A verdict needs a run of failures over a minimum time, outside the startup grace; silence and
UNKNOWN change nothing. Called by `decide`; destroys nothing and knows no budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from . import drift
from .model import (
    Check,
    Judged,
    Observation,
    Policy,
    Probe,
    Refusal,
    Spec,
    Verdict,
    Vm,
    VmMemory,
    VmState,
    VmStatus,
)
from .words import moment, names

SILENCE = Probe(Verdict.UNKNOWN)
# A VM that was ready for so long after its repair has its repairs forgotten.
REPAIRED_FOR_GOOD = timedelta(hours=1)

# States in which nothing but the cloud decides.
_SETTLED = {
    VmState.STOPPED: (VmStatus.STOPPED, "stopped by somebody: parked"),
    VmState.TRANSITIONING: (VmStatus.UNKNOWN, "being moved, resized or rebooted by somebody"),
    VmState.DELETING: (VmStatus.DELETING, "on its way out"),
    VmState.TERMINATED: (VmStatus.TERMINATED, "ended"),
    VmState.ERROR: (VmStatus.ERROR, "given up by the cloud"),
    VmState.UNKNOWN: (VmStatus.UNKNOWN, "the cloud cannot tell"),
}
_GOING = {VmState.DELETING, VmState.TERMINATED}


def judge_all(seen: Observation) -> tuple[Judged, ...]:
    """Every VM with what it is for us, in order of ids."""
    return tuple(judge(vm, seen) for vm in sorted(seen.vms, key=lambda vm: vm.vm_id))


def judge(vm: Vm, seen: Observation) -> Judged:
    """One VM, with what is to be remembered about it."""
    memory = seen.memory.vms.get(vm.vm_id) or VmMemory(first_seen=seen.now)
    memory = drift.first_report(memory, vm)
    if memory.is_terminating and vm.state is not VmState.TERMINATED:
        return _judged(vm, VmStatus.DELETING, "we had it terminated", memory, seen=seen)
    if memory.kept_since is not None and vm.state not in _GOING:
        reason = f"failed, and kept for study since {moment(memory.kept_since)}"
        return _judged(vm, VmStatus.KEPT, reason, memory, seen=seen)
    if vm.state in _SETTLED:
        status, reason = _SETTLED[vm.state]
        words = vm.fault or vm.cloud_state
        return _judged(vm, status, f"{reason}: {words}" if words else reason, memory, seen=seen)
    if vm.state is VmState.PENDING:
        is_late = _is_late(memory, seen.spec.policy, seen.now)
        reason = "booting for too long" if is_late else "booting"
        return _judged(vm, VmStatus.PENDING, reason, memory, seen=seen)
    if memory.first_running is None:
        memory = replace(memory, first_running=seen.now)
    memory = remember_probe(memory, seen.probes.get(vm.vm_id, SILENCE), seen.spec, seen.now)
    return _running(vm, memory, seen)


def remember_probe(memory: VmMemory, probe: Probe, spec: Spec, now: datetime) -> VmMemory:
    """The run of failures or passes, after one more probe of a running VM."""
    check = spec.check
    if check is None:
        return forget_failures(memory)
    if probe.verdict is Verdict.HEALTHY:
        return _passed(memory, check)
    if probe.verdict is not Verdict.UNHEALTHY:
        return memory
    if in_grace(memory, spec.policy, now):
        return forget_failures(memory)  # from before the preset was told to be more patient
    return _failed(memory, check, now)


def in_grace(memory: VmMemory, policy: Policy, now: datetime) -> bool:
    """Whether failures mean nothing yet. The first pass ends the grace early."""
    if memory.was_healthy:
        return False
    return memory.first_running is None or now - memory.first_running < policy.startup_grace


def is_overdue(judged: Judged, policy: Policy, now: datetime) -> bool:
    """Whether a VM has been booting for too long, counted from when it was first seen."""
    is_booting = judged.vm.state is VmState.PENDING and judged.status is VmStatus.PENDING
    return is_booting and _is_late(judged.memory, policy, now)


def _is_late(memory: VmMemory, policy: Policy, now: datetime) -> bool:
    return now - (memory.repaired_at or memory.first_seen) >= policy.boot_timeout


def is_failing(judged: Judged) -> bool:
    """Whether its check fails at present, be the run long enough for a verdict or not."""
    return judged.memory.failures > 0 and is_watched(judged)


def is_watched(judged: Judged) -> bool:
    """Whether its check says anything about it: it runs, and is not out of our hands."""
    gone = {VmStatus.DELETING, VmStatus.KEPT}
    return judged.vm.state is VmState.RUNNING and judged.status not in gone


def is_confirmed(judged: Judged, seen: Observation) -> bool:
    """Whether a probe of this very cycle bears its verdict out: an older one is no ground to touch
    it.
    """
    return seen.probes.get(judged.vm.vm_id, SILENCE).verdict is Verdict.UNHEALTHY


def unconfirmed(group: Iterable[Judged]) -> Refusal:
    """Why these condemned VMs are not touched now."""
    message = f"{names(group)}: condemned, and its last probe does not confirm it"
    return Refusal("HEALTH_UNKNOWN", message)


def forget_failures(memory: VmMemory) -> VmMemory:
    """The same memory with its health timers started anew."""
    return replace(memory, failures=0, failing_since=None, passes=0, is_unhealthy=False)


def _passed(memory: VmMemory, check: Check) -> VmMemory:
    passes = min(memory.passes + 1, check.rise)
    if memory.passes == passes and memory.was_healthy and not memory.failures:
        return memory  # as in most cycles of most VMs
    if passes >= check.rise or memory.failures == 0:
        return replace(
            memory,
            passes=passes,
            was_healthy=True,
            failures=0,
            failing_since=None,
            is_unhealthy=False,
        )
    return replace(memory, passes=passes, was_healthy=True)


def _failed(memory: VmMemory, check: Check, now: datetime) -> VmMemory:
    failures, since = min(memory.failures + 1, check.fall), memory.failing_since or now
    condemned = failures >= check.fall and now - since >= check.min_failing_time
    return replace(
        memory,
        failures=failures,
        failing_since=since,
        passes=0,
        is_unhealthy=memory.is_unhealthy or condemned,
    )


def _running(vm: Vm, memory: VmMemory, seen: Observation) -> Judged:
    # An announced shutdown comes, whatever its check says: it is told first.
    if expiring := _expiring(vm, seen):
        return _judged(vm, *expiring, memory, seen=seen)
    if memory.is_unhealthy:
        message = seen.probes.get(vm.vm_id, SILENCE).message or "its check fails"
        reason = f"failing since {moment(memory.failing_since)}: {message}"
        return _judged(vm, VmStatus.UNHEALTHY, reason, memory, seen=seen)
    if seen.spec.check is None:
        return _judged(vm, VmStatus.RUNNING, "running", memory, seen=seen, is_ready=True)
    if not memory.was_healthy:
        reason = "running, has not passed its check yet"
        return _judged(vm, VmStatus.PENDING, reason, memory, seen=seen)
    reason = (
        "passes its check"
        if memory.failures == 0
        else f"failed its check {memory.failures} times, not enough yet"
    )
    return _judged(vm, VmStatus.RUNNING, reason, memory, seen=seen, is_ready=memory.failures == 0)


def _expiring(vm: Vm, seen: Observation) -> tuple[VmStatus, str] | None:
    if vm.shutdown_at is None:
        return None
    left = vm.shutdown_at - seen.now
    if left <= timedelta(0):
        ended = f"its shutdown was announced for {moment(vm.shutdown_at)}"
        return VmStatus.AFTER_TIME_SHUTDOWN, ended
    if left <= _notice(vm, vm.shutdown_at, seen.spec.policy):
        near = f"its shutdown is announced for {moment(vm.shutdown_at)}"
        return VmStatus.NEARBY_SHUTDOWN, near
    return None


def _notice(vm: Vm, shutdown_at: datetime, policy: Policy) -> timedelta:
    """How long before its shutdown a VM is replaced: never from its birth on, so that VMs with a
    life shorter than the notice do not replace each other for ever.
    """
    if vm.created is None:
        return policy.shutdown_notice
    return min(policy.shutdown_notice, (shutdown_at - vm.created) / 2)


def _judged(
    vm: Vm,
    status: VmStatus,
    reason: str,
    memory: VmMemory,
    *,
    seen: Observation,
    is_ready: bool = False,
) -> Judged:
    memory = _proving(memory, seen) if is_ready else _not_ready(memory)
    return Judged(
        vm=vm,
        status=status,
        reason=reason,
        memory=memory,
        is_ready=is_ready,
        is_outdated=drift.is_outdated(vm, memory, seen.spec),
    )


def _not_ready(memory: VmMemory) -> VmMemory:
    return memory if memory.ready_since is None else replace(memory, ready_since=None)


def _proving(memory: VmMemory, seen: Observation) -> VmMemory:
    """The memory of a ready VM: since when, and what follows from having been so for long."""
    if memory.ready_since is None:
        memory = replace(memory, ready_since=seen.now)
    lasted = seen.now - (memory.ready_since or seen.now)
    if not memory.was_proved and lasted >= seen.spec.policy.min_healthy_time:
        memory = replace(memory, was_proved=True)
    if (memory.reboots or memory.rebuilds) and lasted >= REPAIRED_FOR_GOOD:
        memory = replace(memory, reboots=0, rebuilds=0)
    return memory
