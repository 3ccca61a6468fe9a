"""Pure: why a living VM is to be replaced, and what may be tried before that.

One reason a VM, the cloud's and the check's before the preset's own wishes. Read by `stock`; who of
several leaves first is `ranking`, how many may leave is `remove`.
"""

from __future__ import annotations

from . import drift, health
from .model import Judged, Memory, Method, Observation, Process, Reason, Verdict, VmStatus

_EXPIRING = {VmStatus.NEARBY_SHUTDOWN, VmStatus.AFTER_TIME_SHUTDOWN}
_PROCESSES = {Reason.UNHEALTHY: Process.HEALTH, Reason.OUTDATED: Process.ROLLOUT}


def why_leave(judged: Judged, memory: Memory, seen: Observation) -> Reason | None:
    """Why this VM is to be replaced; None when it stays. What is protected always stays."""
    if judged.vm.protected:
        return None
    if judged.status is VmStatus.UNHEALTHY:
        is_final = is_condemned(memory, seen) and next_repair(judged, seen) is None
        return Reason.UNHEALTHY if is_final else None
    if judged.status in _EXPIRING:
        return Reason.TIMED_SHUTDOWN
    if judged.status is VmStatus.STOPPED and seen.spec.policy.stopped_are_replaced:
        return Reason.STOPPED
    if health.is_overdue(judged, seen.spec.policy, seen.now) and memory.suspended_since is None:
        return Reason.BOOT_TIMEOUT
    return None


def is_condemned(memory: Memory, seen: Observation) -> bool:
    """Whether anything may be done to a VM for its health at all."""
    check = seen.spec.check
    is_open = memory.breaker_since is not None or memory.suspended_since is not None
    return check is not None and not check.observe_only and not is_open


def next_repair(judged: Judged, seen: Observation) -> Method | None:
    """What is tried before an unhealthy VM is replaced. An outdated one is not worth a repair.

    Nor is one repaired on the word of a prober that finds nobody well: a replacement that passes
    is the proof then.
    """
    if drift.matters(judged, seen.spec) or not _has_witness(seen):
        return None
    policy, memory = seen.spec.policy, judged.memory
    if memory.reboots < policy.reboots and Method.REBOOT in seen.cloud.methods:
        return Method.REBOOT
    if memory.rebuilds < policy.rebuilds and Method.REBUILD in seen.cloud.methods:
        return Method.REBUILD
    return None


def _has_witness(seen: Observation) -> bool:
    """Whether the prober finds any VM well, or sees but one."""
    fleet, found = seen.fleet, [each.verdict for each in seen.probes.values()]
    if Verdict.HEALTHY in found or fleet.probed > fleet.failing:
        return True
    return len(found) <= 1 and fleet.probed <= 1


def process_for(reason: Reason | None) -> Process:
    """The part of the work that replaces a VM for this reason."""
    return _PROCESSES.get(reason, Process.REPLACE) if reason else Process.REPLACE
