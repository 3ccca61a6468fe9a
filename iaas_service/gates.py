"""The gates of destruction: each one refuses for a reason of its own, and none can be skipped.

`mutations` asks them in this order: authority (token, reason, evidence), identity (the VM as it is
now bears our marker, is of this preset, and is the one that was meant), protection, budget,
breaker.  No I/O; the time is given.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

from pydantic import Field, PositiveInt

from vmshepherd_kit.errors import BadRequest, Refused, Throttled, Violation
from vmshepherd_kit.settings import Duration, Settings

from . import marker
from .domain import Mutation, Reason, Vm, VmId, VmState
from .tokens import TokenFloors

# What ends by itself, or has ended, costs nothing.
_COSTLESS = frozenset({VmState.TERMINATED, VmState.DELETING})

Victim = tuple[str, VmId, datetime]


class Limits(Settings):
    """How much may be destroyed by one iaas_service."""

    terminations: PositiveInt = 20
    """Most VMs within `window`, over all presets and providers."""
    window: Duration = timedelta(minutes=10)
    breaker_count: PositiveInt = 5
    """VMs destroyed as UNHEALTHY within `breaker_window` from which on the breaker may open."""
    breaker_percent: int = Field(default=20, ge=0, le=100)
    """It opens when they are also more than this share of all VMs of the provider."""
    breaker_window: Duration = timedelta(minutes=10)


class Window:
    """What happened within some time, each thing once: a repeat costs nothing."""

    def __init__(self, length: timedelta) -> None:
        self._length = length
        self._order: deque[tuple[timedelta, Victim]] = deque()
        self._members: set[Victim] = set()

    def add(self, victim: Victim, now: timedelta) -> None:
        """Count it, from its first time."""
        if not self.has(victim, now):
            self._order.append((now, victim))
            self._members.add(victim)

    def has(self, victim: Victim, now: timedelta) -> bool:
        """Whether it is counted already."""
        self._forget(now)
        return victim in self._members

    def count(self, now: timedelta, provider: str | None = None) -> int:
        """How many, of one provider or of all."""
        self._forget(now)
        return sum(provider in {None, victim[0]} for victim in self._members)

    def until_next_leaves(self, now: timedelta) -> timedelta:
        """How long until the oldest is forgotten."""
        return self._order[0][0] + self._length - now if self._order else timedelta(0)

    def _forget(self, now: timedelta) -> None:
        while self._order and self._order[0][0] + self._length <= now:
            self._members.discard(self._order.popleft()[1])


class Gates:
    """The gates of one process, with the budgets that all its providers share."""

    def __init__(self, limits: Limits, tokens: TokenFloors, *, suite_id: str) -> None:
        self._limits = limits
        self._tokens = tokens
        self._suite_id = suite_id
        self._terminations = Window(limits.window)
        self._unhealthy = Window(limits.breaker_window)
        # Marked VMs in the last listing of each provider; never listed, the breaker sees none.
        self._sizes: dict[str, int] = {}

    def saw(self, provider: str, marked_vms: int) -> None:
        """Remember how many VMs a listing showed."""
        self._sizes[provider] = marked_vms

    def pass_authority(self, mutation: Mutation) -> None:
        """Token, then reason and evidence."""
        self._tokens.admit(mutation.preset, mutation.fencing_token)
        missing = [
            Violation(field, "is required: nothing is touched without it")
            for field, is_there in (
                ("reason", mutation.reason is not None),
                ("evidence", bool(mutation.evidence.strip())),
                ("create_time", mutation.create_time is not None),
            )
            if not is_there
        ]
        if missing:
            fields = ", ".join(violation.field for violation in missing)
            raise BadRequest(f"missing: {fields}", violations=missing)

    def pass_identity(self, mutation: Mutation, vm: Vm) -> None:
        """`vm` was read just now: ours, of this preset, and the one that was meant."""
        found = marker.read(vm.metadata, self._suite_id)
        if found is None:
            raise Refused(
                f"VM {vm.vm_id} does not bear the marker of suite {self._suite_id!r}",
                reason="NOT_OURS",
                vm_id=vm.vm_id,
            )
        if found.preset != mutation.preset:
            raise Refused(
                f"VM {vm.vm_id} is of preset {found.preset!r}, not {mutation.preset!r}",
                reason="NOT_OURS",
                vm_id=vm.vm_id,
                preset=found.preset,
            )
        if vm.create_time != mutation.create_time:
            raise Refused(
                f"VM {vm.vm_id} was made at {vm.create_time.isoformat()}: it is another one",
                reason="NOT_THE_SAME_VM",
                vm_id=vm.vm_id,
            )

    def pass_protection(self, mutation: Mutation, vm: Vm) -> None:
        """Protected VMs are for operators who say `force`."""
        if marker.is_protected(vm) and not mutation.is_forced:
            by = "by the cloud" if vm.locked else f"by its metadata {marker.PROTECTED}"
            raise Refused(
                f"VM {vm.vm_id} is protected {by}; an operator may force it",
                reason="PROTECTED",
                vm_id=vm.vm_id,
            )

    def pass_limits(self, provider: str, mutation: Mutation, vm: Vm, now: timedelta) -> None:
        """Budget and breaker; a VM that passes is counted, so nothing may come between this and
        the call.
        """
        victim = (provider, vm.vm_id, vm.create_time)
        if vm.state in _COSTLESS:
            return
        if not mutation.is_forced:
            self._pass_budget(victim, now)
        if mutation.reason is Reason.UNHEALTHY:
            self._pass_breaker(victim, now)
            self._unhealthy.add(victim, now)
        self._terminations.add(victim, now)

    def _pass_budget(self, victim: Victim, now: timedelta) -> None:
        spent = self._terminations.count(now)
        if spent >= self._limits.terminations and not self._terminations.has(victim, now):
            limit, window = self._limits.terminations, self._limits.window
            raise Throttled(
                f"{spent} VMs were destroyed within {window}, and {limit} are allowed",
                reason="BUDGET_SPENT",
                retry_after=self._terminations.until_next_leaves(now),
                limit=str(limit),
            )

    def _pass_breaker(self, victim: Victim, now: timedelta) -> None:
        provider = victim[0]
        if self._unhealthy.has(victim, now):
            return
        fallen, known = self._unhealthy.count(now, provider), self._sizes.get(provider, 0)
        is_many = fallen >= self._limits.breaker_count
        if is_many and fallen * 100 > self._limits.breaker_percent * known:
            raise Refused(
                f"{fallen} of {known} VMs were destroyed as unhealthy within "
                f"{self._limits.breaker_window}: the cause may lie elsewhere, so no more are",
                reason="BREAKER_OPEN",
                provider=provider,
            )
