"""What was declared, granted and recorded, as an outside witness wrote it down.

The invariants judge by it. A store is wrapped on its way into a runtime service, so that grants and
events are known with the moment at which they were answered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime_service.domain import Acquired, Event, Grant, HeldLock, LockWish, SessionId

from .loop import Kernel

# How long a decision made of what was declared may still take effect: a request that travels for
# 90 s, then the cloud's own lateness.
ECHO = 200.0
FOR_EVER = 1e12


@dataclass
class Ledger:
    """The witness's book."""

    kernel: Kernel
    counts: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    removals: dict[str, list[float]] = field(default_factory=dict)
    """When a preset was removed and restored, in turn."""
    kept: dict[str, float] = field(default_factory=dict)
    """VMs of which it was recorded that they are kept for study, and when."""
    approved: set[str] = field(default_factory=set)
    """Removed presets whose end a person may have approved."""
    repairs: set[str] = field(default_factory=set)
    """VMs of which it was recorded that they are rebooted or rebuilt."""
    announced: set[str] = field(default_factory=set)
    """VMs whose end was recorded with its reason and evidence."""
    excused: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Presets whose records were lost by a store that failed over, and until when that counts."""
    sent: dict[str, float] = field(default_factory=dict)
    """When the last create of a preset reached iaas_service."""

    grants: dict[str, tuple[int, float]] = field(default_factory=dict)
    """The newest token of each preset's lock that a store gave, and when."""

    freed: dict[tuple[str, int], float] = field(default_factory=dict)
    """When a lock was given back under a token by who held it."""

    def declare(self, preset: str, count: int) -> None:
        """A count is asked for, and nothing holds it back."""
        self.counts.setdefault(preset, []).append((self.kernel.now, count))

    def count(self, preset: str) -> int:
        """The count that is asked for now."""
        return self.counts[preset][-1][1]

    def most(self, preset: str) -> int:
        """The largest count that may still be acted upon."""
        return max(self._recent(preset), default=0)

    def least(self, preset: str) -> int:
        """The smallest count that may still be acted upon."""
        return min(self._recent(preset), default=0)

    def unavailable(self, preset: str) -> int:
        """How many VMs of a preset may be missing because of us."""
        return int(self.policies[preset].get("max_unavailable", 1))

    def removed(self, preset: str) -> None:
        """Its file is taken away."""
        self.removals.setdefault(preset, []).append(self.kernel.now)

    def restored(self, preset: str) -> None:
        """Its file is there, again or as before."""
        told = self.removals.get(preset, [])
        if len(told) % 2:
            told.append(self.kernel.now)
            self.approved.discard(preset)

    def gone_for(self, preset: str) -> float:
        """How long it was removed, the last time, as somebody may still believe; else 0."""
        told, now = self.removals.get(preset, []), self.kernel.now
        if len(told) % 2:
            return now - told[-1]
        return told[-1] - told[-2] if told and told[-1] > now - ECHO else 0.0

    def granted(self, preset: str, token: int) -> None:
        """A store gave a token; asked for again, it is the same one and no news."""
        if token > self.grants.get(preset, (0, 0.0))[0]:
            self.grants[preset] = token, self.kernel.now

    def excuse_lost_writes(self) -> None:
        """The store lost writes: creates sent a while ago may be forgotten by everybody, and what
        was granted of late.
        """
        now = self.kernel.now
        self.grants.clear()
        self.freed.clear()
        for preset, at in self.sent.items():
            if now - at < ECHO:
                self.excused[preset] = now + ECHO

    def is_excused(self, preset: str) -> bool:
        """Whether a VM too many is the lost store's fault."""
        return self.kernel.now < self.excused[preset]

    def _recent(self, preset: str) -> list[int]:
        told = self.counts.get(preset, [])
        since = self.kernel.now - ECHO
        ends = [*(at for at, _ in told[1:]), FOR_EVER]
        return [count for (_, count), end in zip(told, ends, strict=True) if end >= since]


class Witnessed:
    """A store as a runtime service has it, with the witness looking on."""

    def __init__(self, store: Any, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append_events(self, events: Sequence[Event]) -> list[int]:
        """See the port."""
        sequences: list[int] = await self._store.append_events(events)
        for event in events:
            if event.reason and event.message:
                self._note(event)
        return sequences

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        """See the port."""
        grants: list[Grant] = await self._store.try_lock(session_id, wishes)
        for wish, grant in zip(wishes, grants, strict=True):
            if isinstance(grant, Acquired):
                self._ledger.granted(_preset(wish.name), grant.fencing_token)
        return grants

    async def unlock(self, session_id: SessionId, locks: Sequence[HeldLock]) -> list[bool]:
        """See the port."""
        released: list[bool] = await self._store.unlock(session_id, locks)
        for lock, is_free in zip(locks, released, strict=True):
            if is_free:
                freed = self._ledger.freed
                freed[_preset(lock.name), lock.fencing_token] = self._ledger.kernel.now
        return released

    def _note(self, event: Event) -> None:
        ledger = self._ledger
        if event.kind == "VM_TERMINATING":
            ledger.announced.add(event.vm_id)
        elif event.kind == "VM_KEPT":
            ledger.kept.setdefault(event.vm_id, ledger.kernel.now)
        elif event.kind in {"VM_REBOOTING", "VM_REBUILDING"}:
            ledger.repairs.add(event.vm_id)


def _preset(lock: str) -> str:
    """The preset of a lock of that name."""
    return lock.removeprefix("preset/")
