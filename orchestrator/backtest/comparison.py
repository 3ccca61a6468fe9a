"""Two stories of one timeline, side by side: what the proposed policy adds to the present one.

The verdict counts VMs, not moments: one that both destroy is no news, however much earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .story import Destroyed, Story


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What two policies did in the same timeline."""

    name: str
    proposed: Story
    present: Story

    @property
    def condemned(self) -> tuple[Destroyed, ...]:
        """VMs of the timeline that the proposed policy destroys and the present one spares."""
        return _only(self.proposed, self.present)

    @property
    def spared(self) -> tuple[Destroyed, ...]:
        """VMs of the timeline that the present policy destroys and the proposed one spares."""
        return _only(self.present, self.proposed)

    @property
    def more_of_its_own(self) -> int:
        """How many more of the VMs that it made itself the proposed policy destroys."""
        return _own(self.proposed) - _own(self.present)

    @property
    def destroys_anything(self) -> bool:
        """Whether either of them destroys a VM."""
        return bool(self.proposed.destroyed or self.present.destroyed)

    @property
    def is_worse(self) -> bool:
        """Whether the proposed policy destroys what the present one does not."""
        return bool(self.condemned) or self.more_of_its_own > 0


def verdict(comparisons: Sequence[Comparison]) -> str:
    """The sentence that it all comes to."""
    condemned = sum(len(each.condemned) for each in comparisons)
    spared = sum(len(each.spared) for each in comparisons)
    own = sum(max(0, each.more_of_its_own) for each in comparisons)
    parts = []
    if condemned:
        parts.append(f"destroyed {_vms(condemned)} that the present one spared")
    if spared:
        parts.append(f"spared {_vms(spared)} that the present one destroyed")
    if own:
        parts.append(f"destroyed {own} more of the VMs that it made itself")
    if not parts and not any(each.destroys_anything for each in comparisons):
        return "neither policy would have destroyed a VM"
    if not parts:
        return "the proposed policy would have destroyed the same VMs as the present one"
    return f"the proposed policy would have {', and '.join(parts)}"


def _only(story: Story, other: Story) -> tuple[Destroyed, ...]:
    theirs = {each.vm_id for each in other.destroyed}
    return tuple(each for each in story.destroyed if not each.is_made and each.vm_id not in theirs)


def _own(story: Story) -> int:
    return sum(each.is_made for each in story.destroyed)


def _vms(number: int) -> str:
    return "1 VM" if number == 1 else f"{number} VMs"
