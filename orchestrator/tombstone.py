"""Pure: the end of a preset that its source does not declare any more.

Its VMs run on for a grace, untouched; then they go only if its last good spec said so, nobody holds
it back, and as slowly as any others. A preset that comes back within the grace finds everything as
it was.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from .budget import within_budget
from .model import Judged, Process, Reason, Refusal, Removal, Spec, Terminate, VmState, VmStatus
from .patience import is_lingering, may_retry
from .stock import Stock
from .words import moment, names

# What nobody can tell about stays; what is going already needs nothing.
_LEFT = {VmStatus.UNKNOWN, VmStatus.DELETING}


def wind_down(stock: Stock, removal: Removal) -> tuple[tuple[Terminate, ...], tuple[Refusal, ...]]:
    """VMs of a removed preset that go now, and what else is to be said."""
    spec = stock.seen.spec
    notes = (_removed(spec, removal, stock.seen.now),)
    if removal.held_back and spec.policy.deleted_on_removal:
        # Told from the first: people have the grace to find out what went wrong.
        return (), (*notes, Refusal("REMOVALS_NEED_APPROVAL", removal.held_back))
    if not _is_due(spec, removal, stock.seen.now):
        return (), notes
    doomed = [each for each in stock.judged if _may_go(each, stock)]
    if doomed and stock.is_paused(Process.SCALE_IN):
        return (), (stock.paused(Process.SCALE_IN, f"VMs of a removed preset: {len(doomed)}"),)
    evidence = f"its preset was removed from its source at {moment(removal.since)}"
    steps = [
        Terminate(vm=each.vm, reason=Reason.PRESET_REMOVED, evidence=evidence) for each in doomed
    ]
    records = [step for step in steps if step.vm.state is VmState.TERMINATED]
    living, limits = within_budget([step for step in steps if step not in records], stock)
    return (*living, *records), (*notes, *limits, *_spared(stock))


def _is_due(spec: Spec, removal: Removal, now: datetime) -> bool:
    policy = spec.policy
    is_over = removal.left(policy.removal_grace, now) <= timedelta(0)
    return policy.deleted_on_removal and is_over


def _removed(spec: Spec, removal: Removal, now: datetime) -> Refusal:
    gone = f"removed from its source at {moment(removal.since)}"
    if not spec.policy.deleted_on_removal:
        return Refusal("PRESET_REMOVED", f"{gone}: its VMs run on, unmanaged (on_remove: keep)")
    if removal.held_back:
        fate = "its VMs run on, unmanaged, until their removal is approved"
    elif _is_due(spec, removal, now):
        fate = "its grace is over, its VMs are destroyed"
    else:
        until = moment(now + removal.left(spec.policy.removal_grace, now))
        fate = f"its VMs run on, unmanaged, until {until} and are then destroyed"
    return Refusal("PRESET_REMOVED", f"{gone}: {fate} (on_remove: delete)")


def _may_go(judged: Judged, stock: Stock) -> bool:
    return (
        judged.status not in _LEFT
        and not judged.vm.protected
        and not is_lingering(judged, stock)
        and may_retry(judged, stock)
    )


def _spared(stock: Stock) -> tuple[Refusal, ...]:
    spared = [each for each in stock.judged if each.vm.protected]
    if not spared:
        return ()
    return (Refusal("PROTECTED", f"{names(spared)}: protected, left alone"),)
