"""How the removal of a preset stands: since when, how much of its grace was waited, and what holds
its consequences back.

The grace is counted by clocks that only run, and what was counted is written down: a date that was
set, or that another holder reads differently, ends none. Called by the cycle; it touches no VM.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from vmshepherd.preset.v1 import preset_pb2
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import ShepherdError

from .archive import Legacy
from .clients.presets import Presets
from .model import Removal
from .removals import Removals
from .turn import Turn

# What is waited is written when so much more of it is: a holder that dies takes no more with it.
WORTH_WRITING = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a decision goes by, and what is to be remembered."""

    removal: Removal
    legacy: Legacy


async def standing(
    turn: Turn, *, presets: Presets, removals: Removals, percent: int, clock: Clock
) -> Standing:
    """How the removal of this preset stands; `percent` of all may go unasked."""
    since = turn.legacy.removed or clock.wall()
    legacy = replace(turn.legacy, removed=since)
    is_mortal = turn.spec.policy.deleted_on_removal
    sources, why = await _read(presets) if is_mortal else ((), "")
    why = why_nobody_can_tell(presets) or why
    is_approved = turn.wishes.approved_count == 0
    if not (why or is_approved):
        was_held_back = legacy.is_held_back
        why = await removals.why_held_back(turn.name, percent, was_held_back=was_held_back)
        # Once held back with others, it waits for a person, whatever becomes of those.
        legacy = replace(legacy, is_held_back=was_held_back or bool(why))
        why = why or _why_not_sure(turn, sources, presets)
    waited = _waited(turn, clock.elapsed())
    removal = Removal(since=since, held_back=why, counted=waited)
    return Standing(removal=removal, legacy=_counted(turn, legacy, waited, clock.elapsed()))


def why_nobody_can_tell(presets: Presets) -> str:
    """Why it is not known whether a removed preset is declared again; "" when it is."""
    why = presets.error
    if not why and not presets.is_synced:
        why = "not every source has been read yet"
    return _unknown(why) if why else ""


async def _read(presets: Presets) -> tuple[Sequence[preset_pb2.Source], str]:
    """The sources, and why what was read of them may be old."""
    try:
        sources = await presets.sources()
    except ShepherdError as e:
        return (), _unknown(e.message)
    why = next((f"{each.name}: {each.error}" for each in sources if each.error), "")
    return sources, _unknown(why) if why else ""


def _unknown(why: str) -> str:
    return f"nobody can tell whether it is declared again: {why}"


def _why_not_sure(turn: Turn, sources: Iterable[preset_pb2.Source], presets: Presets) -> str:
    """A file that was never understood may declare any name, whatever it seems to mean."""
    files = ((source.name, finding.file) for source in sources for finding in source.findings)
    unread = next((file for name, file in files if not presets.is_understood(name, file)), "")
    if not unread:
        return ""
    return (
        f"the file {unread} was refused, and may be the one that declares it: mend it, or "
        f"approve: vmshepherd preset reconcile {turn.name} --approve-count"
    )


def _waited(turn: Turn, elapsed: timedelta) -> timedelta:
    """How much of the grace is over; nothing counts what has no end."""
    legacy, policy = turn.legacy, turn.spec.policy
    if legacy.counted_at is None or not policy.deleted_on_removal:
        return legacy.waited
    return min(policy.removal_grace, legacy.waited + elapsed - legacy.counted_at)


def _counted(turn: Turn, legacy: Legacy, waited: timedelta, elapsed: timedelta) -> Legacy:
    """The legacy with what was waited, once that is worth a write."""
    is_full = waited >= turn.spec.policy.removal_grace
    if legacy.counted_at is None or is_full or waited - legacy.waited >= WORTH_WRITING:
        return replace(legacy, waited=waited, counted_at=elapsed)
    return legacy
