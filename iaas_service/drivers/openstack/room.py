"""Whether the quotas of a project have room for a VM: asked before Nova is.

`create` takes room for each VM before it sends anything.  A reading of the limits that shows room,
less what was ordered of late, lets a VM pass at once; only a fresh one refuses, and when it hangs
upon what Nova has not counted yet, that is waited for.  What cannot be read refuses nobody: Nova
judges itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import OutcomeUnknown, QuotaExceeded, ShepherdError

from ...domain import Quota
from . import quotas
from .choose import Thing
from .inventory import Inventory

_NOW: Final = timedelta(0)
# Nova counts a server when it has been given to a cell, a moment after it has answered the order.
_COUNTED_WITHIN: Final = timedelta(seconds=10)
_AGAIN: Final = timedelta(seconds=1)


@dataclass(eq=False, slots=True)
class _Taking:
    """One order; a reading that began long enough after its end tells of it."""

    need: quotas.Need
    ended: timedelta | None = None


class Room:
    """Of one place."""

    def __init__(self, inventory: Inventory, clock: Clock) -> None:
        self._inventory = inventory
        self._clock = clock
        self._takings: list[_Taking] = []

    @asynccontextmanager
    async def taken(self, flavor: Thing) -> AsyncIterator[None]:
        """Room for one VM, for the time of its order.  QuotaExceeded names what there is none of.

        An error within that proves that no VM was made gives the room back.
        """
        taking = await self._take(quotas.need(flavor))
        try:
            yield
        except ShepherdError as e:
            if not isinstance(e, OutcomeUnknown):
                self._takings.remove(taking)
            raise
        finally:
            taking.ended = self._clock.elapsed()

    async def _take(self, need: quotas.Need) -> _Taking:
        limits = self._inventory.limits
        short = self._shortage(await limits.find(list), need)
        all_counted = self._clock.elapsed() + _COUNTED_WITHIN
        while short is not None:
            begun = self._clock.elapsed()
            told = await limits.things(kept=_NOW)
            short = self._shortage(told, need)
            if short is None:
                break
            if sure := quotas.shortage(told, (), need):
                raise self._refusal(sure, need[sure.resource])
            if begun >= all_counted:
                raise self._refusal(_at_most_full(short), need[short.resource])
            # Some of what was ordered may be in Nova's numbers by now, or not yet.
            await self._clock.sleep(_AGAIN)
        # Nothing is awaited between the judgement and this: orders side by side count each other.
        taking = _Taking(need)
        self._takings.append(taking)
        return taking

    def _shortage(self, limits: Sequence[Quota], need: quotas.Need) -> Quota | None:
        """The quota that has no room beside all that may be missing in Nova's numbers."""
        if (read_at := self._inventory.limits.read_at) is not None:
            counted = read_at - _COUNTED_WITHIN
            self._takings = [
                each for each in self._takings if each.ended is None or each.ended > counted
            ]
        return quotas.shortage(limits, (each.need for each in self._takings), need)

    def _refusal(self, short: Quota, need: int) -> QuotaExceeded:
        return QuotaExceeded(
            f"{self._inventory.where}: the quota of {short.resource} is used up: {short.used} of "
            f"{short.limit} are used, and this VM needs {need}",
            resource=short.resource,
            limit=str(short.limit),
            used=str(short.used),
            wanted=str(need),
        )


def _at_most_full(short: Quota) -> Quota:
    """What Nova counts already and what was taken may be the same VMs."""
    return replace(short, used=min(short.used, short.limit or 0))
