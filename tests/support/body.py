"""A VM as it really is, in a tiny model of a cloud: what it does by itself as time passes.

Used by `world`; knows nothing of presets or holders, who see of it only what the cloud shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.model import Method, Placement, RequestId, VmId, VmState
from tests.support.given import seconds

DEAD = {VmState.TERMINATED, VmState.ERROR}
REPAIR_TAKES = {Method.REBOOT: seconds(20), Method.REBUILD: seconds(60)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """What is wrong with every VM that is made of a spec."""

    is_stillborn: bool = False
    is_mute: bool = False
    fades_after: timedelta | None = None


@dataclass
class Body:
    """A VM as it really is."""

    vm_id: VmId
    request_id: RequestId
    spec_hash: str
    born: datetime
    boots_until: datetime
    serves_from: datetime
    visible_from: datetime
    placement: Placement
    state: VmState = VmState.PENDING
    is_hung: bool = False
    hangs_from: datetime | None = None
    # What makes a hung VM serve again; nothing does where it is None.
    healed_by: Method | None = None
    under: Method | None = None
    under_until: datetime | None = None
    is_protected: bool = False
    shutdown_at: datetime | None = None
    # "refused" by the cloud, or "ignored" after it was accepted.
    undeletable: str = ""
    asked_at: datetime | None = None
    gone_from: datetime | None = None
    shows_going_from: datetime | None = None

    def live(self, now: datetime) -> None:
        """What happens to it by itself until now."""
        if self.state is VmState.PENDING and self.boots_until <= now:
            self.state = VmState.RUNNING
        if self.hangs_from is not None and self.hangs_from <= now:
            self.is_hung, self.hangs_from = True, None
        if self.under is not None and self.under_until is not None and self.under_until <= now:
            self._is_repaired(self.under)

    def repair(self, method: Method, now: datetime) -> None:
        """Reboot it or make it anew in its place."""
        self.under, self.under_until = method, now + REPAIR_TAKES[method]
        self.state = VmState.TRANSITIONING

    def serves(self, now: datetime) -> bool:
        """Whether it answers."""
        return self.state is VmState.RUNNING and not self.is_hung and self.serves_from <= now

    def has_run_out(self, now: datetime) -> bool:
        """Whether its announced shutdown stopped it."""
        end = self.shutdown_at
        return self.state is VmState.STOPPED and end is not None and end <= now

    def _is_repaired(self, method: Method) -> None:
        self.under = self.under_until = None
        if self.state is VmState.TRANSITIONING:
            self.state = VmState.RUNNING
        if self.healed_by in {method, Method.REBOOT}:
            self.is_hung = False
