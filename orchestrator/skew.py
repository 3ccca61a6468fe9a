"""Pure: memory written by a clock that was ahead.

A holder's clock may be set back between two cycles. Times that lie in the future would suspend
grace, patience and retries for as long as it was ahead; they are taken for now instead, which can
only lengthen a wait. Called by `decide` before anything is judged.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from .model import Backoff, Deletion, Intent, Memory, Policy, Shortage, VmMemory


def not_after(memory: Memory, now: datetime, policy: Policy) -> Memory:
    """The same memory, no time of it later than now."""
    return replace(
        memory,
        intents=tuple(_intent(intent, now) for intent in memory.intents),
        vms={vm_id: _vm(vm, now) for vm_id, vm in memory.vms.items()},
        backoff=_backoff(memory.backoff, now + policy.longest_backoff),
        breaker_since=_capped(memory.breaker_since, now),
        suspended_since=_capped(memory.suspended_since, now),
        shortages=tuple(_shortage(each, now + policy.longest_backoff) for each in memory.shortages),
        deletions=tuple(_deletion(each, now) for each in memory.deletions),
    )


def _vm(vm: VmMemory, now: datetime) -> VmMemory:
    times = (
        vm.first_seen,
        vm.first_running,
        vm.failing_since,
        vm.terminating_since,
        vm.terminate_failed_at,
        vm.ready_since,
        vm.repaired_at,
        vm.kept_since,
    )
    if all(time is None or time <= now for time in times):
        return vm
    return replace(
        vm,
        first_seen=min(vm.first_seen, now),
        first_running=_capped(vm.first_running, now),
        failing_since=_capped(vm.failing_since, now),
        terminating_since=_capped(vm.terminating_since, now),
        terminate_failed_at=_capped(vm.terminate_failed_at, now),
        ready_since=_capped(vm.ready_since, now),
        repaired_at=_capped(vm.repaired_at, now),
        kept_since=_capped(vm.kept_since, now),
    )


def _intent(intent: Intent, now: datetime) -> Intent:
    if intent.sent_at is None or intent.sent_at <= now:
        return intent
    return replace(intent, sent_at=now)


def _backoff(backoff: Backoff, latest: datetime) -> Backoff:
    return replace(
        backoff,
        until=_capped(backoff.until, latest),
        held_until=_capped(backoff.held_until, latest),
    )


def _shortage(shortage: Shortage, latest: datetime) -> Shortage:
    return shortage if shortage.until <= latest else replace(shortage, until=latest)


def _deletion(deletion: Deletion, now: datetime) -> Deletion:
    return deletion if deletion.at <= now else replace(deletion, at=now)


def _capped(time: datetime | None, now: datetime) -> datetime | None:
    return None if time is None else min(time, now)
