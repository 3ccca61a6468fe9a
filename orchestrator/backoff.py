"""Pure: patience after failed creates and births, and the slow start that follows.

A create that the cloud refuses and a VM that dies or never serves right after its birth both
double the patience, from a start that fits the class of the failure. After a failure one VM is
tried alone; the rest follow when it stands. A changed spec is tried at once: it may be the cure.
A create that never left the driver is no failure: it waits as long as it is told, and no longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from .failures import class_of, wait_after
from .health import is_overdue
from .model import Backoff, Judged, Observation, Refusal, Spec, VmStatus
from .words import called

CREATES_PER_CYCLE = 100
INFANCY = timedelta(seconds=30)
BOOT_FAILED = "BOOT_FAILED"

_FAILED = {VmStatus.UNHEALTHY, VmStatus.ERROR, VmStatus.TERMINATED}


def may_create(backoff: Backoff, seen: Observation) -> tuple[int, tuple[Refusal, ...]]:
    """How many creates may be sent now, and why not more."""
    why = f"{_counted(backoff.failures)}: {class_of(backoff.reason).words}{backoff.message}"
    until = backoff.waits_until(seen.now)
    if until is not None:
        wait = (until - seen.now).total_seconds()
        return 0, (Refusal("BACKOFF", f"creating waits {wait:.0f} s{why}"),)
    if backoff.failures == 0:
        return CREATES_PER_CYCLE, ()
    return 1, (Refusal("SLOW_START", f"one VM is tried alone{why}"),)


def after_failure(
    backoff: Backoff,
    *,
    reason: str,
    message: str,
    now: datetime,
    spec: Spec,
    at_least: timedelta | None = None,
) -> Backoff:
    """One failure more; of what was not sent none, and those before it stay what they were."""
    is_failure, longest = class_of(reason).is_failure, spec.policy.longest_backoff
    before = backoff.failures if is_failure else 0
    until = now + wait_after(reason, before=before, at_least=at_least, longest=longest)
    if backoff.failures and not is_failure:
        # Not `until`: whatever was born after that disproves failed births.
        return replace(backoff, held_until=until)
    return Backoff(
        failures=backoff.failures + is_failure,
        until=until if is_failure else None,
        held_until=None if is_failure else until,
        reason=reason,
        message=message,
        spec_hash=spec.spec_hash,
    )


def settle(judged: Sequence[Judged], backoff: Backoff, seen: Observation) -> Backoff:
    """No patience any more once the spec changed, or once a VM of this spec stands."""
    if backoff.failures == 0 and backoff.waits_until(seen.now):
        return backoff
    if backoff.failures == 0 or backoff.spec_hash != seen.spec.spec_hash:
        return Backoff()
    if backoff.reason == BOOT_FAILED and any(_is_proof(each, backoff, seen) for each in judged):
        return Backoff()
    return backoff


def boot_failures(judged: Sequence[Judged], backoff: Backoff, seen: Observation) -> Backoff:
    """One failure more when VMs failed right after birth that were not counted yet."""
    stillborn = [each for each in judged if _is_news(each) and is_stillborn(each, seen)]
    if not stillborn:
        return backoff
    message = f"{stillborn[0].vm.vm_id} failed right after its birth: {stillborn[0].reason}"
    return after_failure(backoff, reason=BOOT_FAILED, message=message, now=seen.now, spec=seen.spec)


def is_stillborn(judged: Judged, seen: Observation) -> bool:
    """Whether a VM of the present spec never served: dead in its infancy, never running, or failing
    its check from the first.
    """
    if judged.memory.was_healthy or not failed_early(judged, seen):
        return False
    dead = judged.status in {VmStatus.ERROR, VmStatus.TERMINATED}
    return not dead or seen.now - judged.memory.first_seen < INFANCY


def failed_early(judged: Judged, seen: Observation) -> bool:
    """Whether a VM of the present spec failed before it proved itself, whatever it did until then.
    One that was repaired in its place was born long ago, and one that we sent away did not fail.
    """
    memory = judged.memory
    if memory.was_proved or memory.repaired_at or memory.terminating_since:
        return False
    if judged.vm.spec_hash != seen.spec.spec_hash:
        return False
    return judged.status in _FAILED or is_overdue(judged, seen.spec.policy, seen.now)


def early_failure(judged: Sequence[Judged], seen: Observation) -> str:
    """Which VM failed early in this cycle, and how; "" when none did."""
    return next(
        (
            f"{called(each.vm)} failed before it proved itself: {each.reason}"
            for each in judged
            if _is_news(each) and failed_early(each, seen)
        ),
        "",
    )


def _counted(failures: int) -> str:
    if failures == 0:
        return ""
    return " after 1 failure" if failures == 1 else f" after {failures} failures"


def _is_news(judged: Judged) -> bool:
    return not judged.memory.boot_failure_counted


def counted(judged: Judged, seen: Observation) -> Judged:
    """The same VM, its early failure not to be counted again."""
    if not failed_early(judged, seen):
        return judged
    return replace(judged, memory=replace(judged.memory, boot_failure_counted=True))


def _is_proof(judged: Judged, backoff: Backoff, seen: Observation) -> bool:
    """Whether a VM disproves the failed births: it was born after them, or is one of them and
    serves after all. A sibling that stood before them proves nothing.
    """
    if backoff.until is None:  # a new holder knows no time of the failures, but who stood then
        before = seen.memory.vms.get(judged.vm.vm_id)
        is_later = before is None or not before.was_proved
    else:
        is_later = judged.memory.first_seen >= backoff.until
    return (is_later or judged.memory.boot_failure_counted) and _stands(judged, seen)


def _stands(judged: Judged, seen: Observation) -> bool:
    """Whether a VM of the present spec proves that such VMs can live."""
    first_running = judged.memory.first_running
    if not judged.is_ready or judged.vm.spec_hash != seen.spec.spec_hash or first_running is None:
        return False
    return judged.memory.was_healthy or seen.now - first_running >= INFANCY
