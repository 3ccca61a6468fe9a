"""Whether the reason that a destruction names is true, by the whole truth of the world.

Called by the judge for every VM that we destroy. What was true a while ago may still be acted upon;
of clocks it is known that they are wrong by up to an hour.
"""

from __future__ import annotations

from collections.abc import Callable

from iaas_service.domain import VmState

from .cloud import Body
from .ledger import ECHO
from .policies import MAX_LIFETIME, REMOVAL_GRACE, SHUTDOWN_NOTICE
from .suite import World

# What the clocks of two machines may differ by in their rate.
TOLERANCE = 0.95
# And in their date.
WRONG_BY = 3600.0
# So many removed presets may go unasked: a fifth of ten.
UNASKED = 2


def untruth(world: World, body: Body, reason: str) -> str:
    """What is not true of it; "" when nothing is known to be."""
    check = _CHECKS.get(reason)
    return check(world, body) if check else ""


def _removed(world: World, body: Body) -> str:
    preset, ledger = body.preset, world.ledger
    gone = ledger.gone_for(preset)
    if ledger.policies[preset].get("on_remove") != "delete":
        return "it was never said that its VMs go with it"
    if gone < REMOVAL_GRACE * TOLERANCE:
        return f"it was removed for {gone:.0f} s"
    if world.repository.unreachable_for(world.kernel.now) > ECHO:
        return "nobody can read whether it is declared again"
    crowd = [each for each in sorted(world.removed) if _is_long_gone(world, each)]
    if len(crowd) > UNASKED and preset not in ledger.approved:
        return f"{len(crowd)} presets are removed, and nobody approved it"
    return ""


def _is_long_gone(world: World, preset: str) -> bool:
    """Whether everybody has known for long that it is removed, and not over."""
    return world.ledger.gone_for(preset) > 2 * ECHO and bool(world.truth.living(preset))


def _study_over(world: World, body: Body) -> str:
    return "" if body.vm_id in world.ledger.kept else "nothing says that it was kept"


def _too_old(world: World, body: Body) -> str:
    if "max_lifetime" not in world.ledger.policies[body.preset]:
        return ""
    age = world.kernel.now - body.born
    least = MAX_LIFETIME - WRONG_BY - ECHO
    return f"it is {age:.0f} s old" if age < least else ""


def _shut_down_soon(world: World, body: Body) -> str:
    if body.ends_at is None:
        return "" if body.was_announced else "no shutdown was announced"
    left = body.ends_at - world.kernel.now
    return f"{left:.0f} s are left" if left > SHUTDOWN_NOTICE + WRONG_BY + ECHO else ""


def _stopped(world: World, body: Body) -> str:
    if world.ledger.policies[body.preset].get("on_stopped") != "replace":
        return "stopped VMs are to be left alone"
    is_one = body.state is VmState.STOPPED or body.started_again_at > world.kernel.now - ECHO
    return "" if is_one else "it is not stopped"


_CHECKS: dict[str, Callable[[World, Body], str]] = {
    "PRESET_REMOVED": _removed,
    "STUDY_OVER": _study_over,
    "MAX_LIFETIME": _too_old,
    "TIMED_SHUTDOWN": _shut_down_soon,
    "STOPPED": _stopped,
}
