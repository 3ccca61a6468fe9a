"""Pure: which VMs leave because they are outdated or too old: batch by batch, a canary first.

A batch is as large as the surge that is under way for it, so nothing has to be remembered but that
a rollout was stopped. The next batch begins when every VM of the declared spec has proved itself:
ready without a break for `min_healthy_time`, and `batch_pause` more. The first VM that fails before
it proved itself stops the rollout, until the spec changes or a person resumes the preset; going
back to the former spec is a rollout like any other, whose canaries stand already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from .model import (
    Judged,
    Memory,
    Observation,
    Policy,
    Process,
    Reason,
    Refusal,
    Replace,
    Rollout,
    VmId,
    VmStatus,
)
from .ranking import leaving_order, untried_first
from .words import moment, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The living VMs of a preset, as far as turning them over needs it."""

    alive: Sequence[Judged]
    # How many of them leave for other reasons.
    leaving: int
    coming: int
    count: int
    memory: Memory
    seen: Observation
    paused: frozenset[Process]


def follow(
    judged: Sequence[Judged], memory: Memory, seen: Observation, *, early_failure: str
) -> Rollout | None:
    """The rollout under way, stopped by a VM that failed early; None when nothing is outdated."""
    spec = seen.spec
    outdated = any(each.is_outdated and each.status in _LIVING for each in judged)
    if spec.policy.replace is not Replace.ROLLING or not outdated:
        return memory.rollout if not seen.complete else None
    rollout = memory.rollout
    if rollout is None or rollout.spec_hash != spec.spec_hash:
        rollout = Rollout(spec_hash=spec.spec_hash)
    if early_failure and rollout.goes_on:
        return replace(rollout, stopped_at=seen.now, stop_message=early_failure)
    return rollout


def batch(group: Group) -> Mapping[VmId, Reason]:
    """VMs that leave now although nothing is wrong with them, each with its reason."""
    outdated, expired = _candidates(group)
    if not outdated and not expired:
        return {}
    number = _number(group, is_canary=bool(outdated) and _canaries_missing(group) > 0)
    order = untried_first(
        leaving_order([*outdated, *expired], oldest_first=True, is_outdated_first=bool(outdated))
    )
    reasons = dict.fromkeys((each.vm.vm_id for each in expired), Reason.MAX_LIFETIME)
    reasons |= dict.fromkeys((each.vm.vm_id for each in outdated), Reason.OUTDATED)
    return {each.vm.vm_id: reasons[each.vm.vm_id] for each in order[:number]}


def notes(group: Group) -> tuple[Refusal, ...]:
    """What people should know of VMs that are outdated or too old, and stay for now."""
    return (*_of_outdated(group), *_of_waiting(group))


def awaited(group: Group) -> list[Judged]:
    """VMs that must prove themselves before the next batch begins, if one is to begin."""
    return _unsteady(group) if any(_candidates(group)) else []


def _of_outdated(group: Group) -> tuple[Refusal, ...]:
    policy, rollout = group.seen.spec.policy, group.memory.rollout
    outdated = [each for each in group.alive if each.is_outdated]
    if outdated and policy.replace is Replace.ON_FAILURE:
        message = (
            f"{len(outdated)} of {len(group.alive)} VMs are of another spec; they are replaced "
            "when they fail (policy.replace: rolling replaces them now)"
        )
        return (Refusal("OUTDATED", message),)
    if rollout is not None and not rollout.goes_on:
        message = (
            f"the rollout stopped at {moment(rollout.stopped_at)}, {len(outdated)} VMs are of "
            f"another spec: {rollout.stop_message}. Mend or revert the preset, or try again: "
            f"vmshepherd preset resume {group.seen.spec.name}"
        )
        return (Refusal("ROLLOUT_STOPPED", message),)
    return ()


def _of_waiting(group: Group) -> tuple[Refusal, ...]:
    waiting = awaited(group)
    if not waiting:
        return ()
    proof = _proof(group.seen.spec.policy).total_seconds()
    return (Refusal("ROLLOUT_WAITING", f"{names(waiting)}: not ready for {proof:g} s yet"),)


def held_up(group: Group) -> list[tuple[Process, str]]:
    """What a pause keeps from being turned over."""
    staying, rollout = _staying(group), group.memory.rollout
    outdated = [each for each in staying if each.is_outdated]
    found = list[tuple[Process, str]]()
    if Process.ROLLOUT in group.paused and rollout and rollout.goes_on and outdated:
        found.append((Process.ROLLOUT, f"{len(outdated)} VMs are outdated"))
    old = _too_old(staying, group)
    if Process.REPLACE in group.paused and old:
        found.append((Process.REPLACE, f"{len(old)} VMs are too old"))
    return found


def unproved(alive: Sequence[Judged]) -> list[Judged]:
    """VMs of the declared spec that cannot stand in for a leaving one: they never proved themselves
    or fail again.
    """
    return [each for each in _current(alive) if not (each.memory.was_proved and each.is_ready)]


_LIVING = {
    VmStatus.PENDING,
    VmStatus.RUNNING,
    VmStatus.UNHEALTHY,
    VmStatus.NEARBY_SHUTDOWN,
    VmStatus.AFTER_TIME_SHUTDOWN,
    VmStatus.UNKNOWN,
}


def _candidates(group: Group) -> tuple[list[Judged], list[Judged]]:
    """Outdated VMs and VMs that are too old, as far as they may leave at all."""
    staying, rollout = _staying(group), group.memory.rollout
    if rollout and rollout.goes_on and Process.ROLLOUT not in group.paused:
        outdated = [each for each in staying if each.is_outdated]
    else:
        outdated = []
    return outdated, [] if Process.REPLACE in group.paused else _too_old(staying, group)


def _staying(group: Group) -> list[Judged]:
    return [each for each in group.alive if each.leaves_for is None and not each.vm.protected]


def _too_old(staying: Sequence[Judged], group: Group) -> list[Judged]:
    """VMs beyond their lifetime; outdated ones are the rollout's, and rest where it rests."""
    if group.memory.suspended_since:
        return []
    rollout = group.memory.rollout
    return [
        each for each in staying if _is_too_old(each, group) and not (rollout and each.is_outdated)
    ]


def _number(group: Group, *, is_canary: bool) -> int:
    """How many leave at once: as many as surge for them, or a new batch when all is proved."""
    size = max(1, group.seen.spec.policy.max_surge)
    surging = len(group.alive) + group.coming - group.count - group.leaving
    if surging > size and Process.SCALE_IN in group.paused:
        return 0  # no telling which of them are a surge, and which the surplus that shall stay
    if surging > 0:
        return min(surging, size)
    if surging < 0 or group.leaving or group.coming or _unsteady(group):
        return 0
    if is_canary:
        return min(size, _canaries_missing(group))
    return size


def _canaries_missing(group: Group) -> int:
    proved = sum(1 for each in group.alive if not each.is_outdated and each.memory.was_proved)
    return group.seen.spec.policy.canary - proved


def _unsteady(group: Group) -> list[Judged]:
    """VMs of the declared spec for which the next batch waits: not ready for long enough, be they
    proved or not.
    """
    steady, now = _proof(group.seen.spec.policy), group.seen.now
    return [
        each
        for each in _current(group.alive)
        if not (each.memory.ready_since and now - each.memory.ready_since >= steady)
    ]


def _current(alive: Sequence[Judged]) -> list[Judged]:
    """VMs of the declared spec; those that people stopped aside."""
    return [each for each in alive if not each.is_outdated and each.status is not VmStatus.STOPPED]


def _proof(policy: Policy) -> timedelta:
    return policy.min_healthy_time + policy.batch_pause


def _is_too_old(judged: Judged, group: Group) -> bool:
    """Whether it lived for long enough; one that has not proved itself has not lived at all."""
    lifetime = group.seen.spec.policy.max_lifetime
    if lifetime is None or not judged.memory.was_proved:
        return False
    return group.seen.now - judged.born >= lifetime
