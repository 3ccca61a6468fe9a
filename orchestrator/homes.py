"""Which replica looks after which preset: rendezvous hashing over the live replicas.  Pure.

Each replica draws a number for each preset, and the greatest one has it. All compute the same
without asking each other, and when a replica comes or goes, only its own presets move. A replica's
draws are weighted by the share of the work that it can take (the logarithmic method of
Schindelhauer and Schomaker, 2005): half the share, half the presets.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .model import PresetName

FULL = 100

_DRAWS = 2**64


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A live replica, and how much of the work it can take, of 100."""

    owner: str
    share: int = FULL


def home(preset: PresetName, members: Sequence[Member]) -> str:
    """Owner of the replica that looks after a preset; "" when there is no replica.

    Replicas that can take nothing get nothing, unless none can take anything.
    """
    able = [member for member in members if member.share > 0] or [
        Member(member.owner) for member in members
    ]
    best = max(able, key=lambda member: (_score(preset, member), member.owner), default=None)
    return best.owner if best else ""


def moved(
    presets: Iterable[PresetName], before: Sequence[Member], after: Sequence[Member], *, owner: str
) -> list[PresetName]:
    """The presets that come to this replica, or leave it, by a change of the replicas."""
    return [
        preset
        for preset in presets
        if (home(preset, before) == owner) is not (home(preset, after) == owner)
    ]


def _score(preset: PresetName, member: Member) -> float:
    text = f"{member.owner}\0{preset}".encode()
    drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    # Neither 0 nor 1, whose logarithms are of no use.
    return -member.share / math.log((drawn + 0.5) / _DRAWS)
