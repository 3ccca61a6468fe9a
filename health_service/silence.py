"""Who has been silent since anybody was last heard.

A group of one or two tells too little to doubt the prober; the silence of several small groups, one
after the other, tells as much as that of a large one. The prober notes each batch; no verdict is
made here.
"""

from __future__ import annotations

from typing import Final

from health_service.batch import Batch
from health_service.domain import Address

# More is not known better.
_ENOUGH: Final = 1000


class Silence:
    """Addresses from which not one packet came, since one came from any other."""

    def __init__(self) -> None:
        self._addresses: set[Address] = set()

    def note(self, batch: Batch) -> None:
        """Remember a batch that is over."""
        if batch.heard:
            self._addresses.clear()
        elif len(self._addresses) < _ENOUGH:
            self._addresses |= batch.silent_addresses

    def breadth(self, batch: Batch) -> int:
        """How many are silent: targets of this batch, or addresses of this and those before."""
        return max(batch.silent, len(self._addresses | batch.silent_addresses))
