"""Pure: a count that changes too much at once waits for a person.

A typing error in a file (10 -> 1000, 10 -> 0) must not be obeyed. Called by `decide` before
anything is counted.
"""

from __future__ import annotations

from .model import Memory, Refusal, Spec, Wishes

FREE_STEP = 5


def accept_count(
    spec: Spec, memory: Memory, wishes: Wishes, *, alive: int = 0
) -> tuple[int, tuple[Refusal, ...]]:
    """The count to work towards, and why it is not the declared one.

    When the store has forgotten what was accepted, the VMs that are alive stand for it: a group is
    never cut down because of a lost store, and one that was still growing goes on. A count that
    goes up again is measured against those that are still there: to keep them makes nothing.
    """
    accepted = memory.accepted_count
    if accepted is None and spec.count < alive:
        accepted = alive
    if accepted is None or wishes.approved_count == spec.count:
        return spec.count, ()
    there = max(accepted, min(alive, spec.count)) if accepted < spec.count else accepted
    if _is_modest(there, spec.count):
        return spec.count, ()
    message = (
        f"the declared count went from {accepted} to {spec.count}: too much at once, "
        f"{accepted} is kept. Approve it: vmshepherd preset reconcile {spec.name} --approve-count"
    )
    return accepted, (Refusal("COUNT_NEEDS_APPROVAL", message),)


def _is_modest(accepted: int, declared: int) -> bool:
    if declared == 0:
        return accepted == 0
    # Half of a group, rounded up, and never less than the free step.
    return abs(declared - accepted) <= max(FREE_STEP, (accepted + 1) // 2)
