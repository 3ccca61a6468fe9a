"""A provider as the service holds it: a cloud under a name, and how it is asked.

Readings are shared and kept: callers who come while a reading has not begun share it, and later
pages continue the reading of the first.  Mutations are bounded in number.  No gate stands here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.errors import ResumeTokenTooOld, Unavailable
from vmshepherd_kit.tasks import hear

from . import marker
from .deadlines import Pace
from .domain import Listing, Marker, Vm, VmId, VmState
from .port import Cloud

_READING_TIME: Final = timedelta(seconds=60)
_SNAPSHOT_LIFE: Final = timedelta(seconds=60)
_SNAPSHOTS: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One listing of a provider's VMs that bear our marker, in order of their ids."""

    vms: Sequence[tuple[Vm, Marker]]
    complete: bool
    incomplete_reason: str
    token_floors: Mapping[str, int]
    """Highest token on the VMs of each preset."""

    @classmethod
    def of(cls, listing: Listing, suite_id: str) -> Reading:
        """What of a listing is ours."""
        read = ((vm, marker.read(vm.metadata, suite_id)) for vm in _once(listing.vms))
        vms = sorted(((vm, mark) for vm, mark in read if mark), key=lambda pair: pair[0].vm_id)
        floors: dict[str, int] = {}
        for _, mark in vms:
            if mark.fencing_token <= marker.HIGHEST_FLOOR:
                floors[mark.preset] = max(floors.get(mark.preset, 0), mark.fencing_token)
        return cls(
            vms=vms,
            complete=listing.complete,
            incomplete_reason=listing.incomplete_reason,
            token_floors=floors,
        )

    def of_presets(self, presets: Collection[str]) -> Reading:
        """The part of these presets; of none, the whole."""
        if not presets:
            return self
        wanted = frozenset(presets)
        floors = {preset: token for preset, token in self.token_floors.items() if preset in wanted}
        vms = [(vm, mark) for vm, mark in self.vms if mark.preset in wanted]
        return replace(self, vms=vms, token_floors=floors)


class Listings:
    """Readings of one cloud: one at a time, and at most one more is waited for.

    A reading that began before a request came is never its answer: it may miss what the caller
    knows has happened.
    """

    def __init__(self, cloud: Cloud, suite_id: str) -> None:
        self._cloud = cloud
        self._suite_id = suite_id
        self._running: asyncio.Task[Reading] | None = None
        self._next: asyncio.Task[Reading] | None = None

    async def read(self) -> Reading:
        """A reading that begins after this call.  Raises what the driver raises, or Unavailable."""
        if self._next is None:
            self._next = asyncio.create_task(self._begin_after(self._running))
            self._next.add_done_callback(hear)
        # Whoever goes away must not take the others' reading along.
        return await asyncio.shield(self._next)

    async def close(self) -> None:
        """Give up whatever is being read."""
        tasks = [task for task in (self._running, self._next) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin_after(self, former: asyncio.Task[Reading] | None) -> Reading:
        if former is not None:
            await asyncio.wait({former})
        self._running, self._next = self._next, None
        try:
            async with asyncio.timeout(_READING_TIME.total_seconds()):
                listing = await self._cloud.list()
        except TimeoutError as e:
            seconds = f"{_READING_TIME.total_seconds():g}"
            raise Unavailable(f"the cloud did not list its VMs within {seconds} s") from e
        finally:
            self._running = None
        return Reading.of(listing, self._suite_id)


def _once(vms: Iterable[Vm]) -> Iterable[Vm]:
    """Each VM once, as it is told best: two places of a provider may be names of one.  Of a VM that
    is counted twice, one would be destroyed.
    """
    found: dict[VmId, Vm] = {}
    for vm in vms:
        if vm.vm_id not in found or vm.state is not VmState.UNKNOWN:
            found[vm.vm_id] = vm
    return found.values()


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A cloud, a region or a project of one, under a name."""

    name: str
    driver: str
    cloud: Cloud
    listings: Listings
    slots: asyncio.Semaphore
    pace: Pace

    @classmethod
    def of(
        cls, name: str, driver: str, cloud: Cloud, *, suite_id: str, parallel_calls: int = 50
    ) -> Provider:
        """A provider that mutates so many VMs at a time."""
        return cls(
            name=name,
            driver=driver,
            cloud=cloud,
            listings=Listings(cloud, suite_id),
            slots=asyncio.Semaphore(parallel_calls),
            pace=Pace(),
        )


class Snapshots:
    """Readings kept for their later pages, a bounded number for a bounded time."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self._chance = chance
        self._kept: OrderedDict[str, tuple[timedelta, Reading]] = OrderedDict()

    def keep(self, reading: Reading) -> str:
        """Its id, for page tokens."""
        snapshot_id = self._chance.uuid()
        self._kept[snapshot_id] = (self._clock.elapsed() + _SNAPSHOT_LIFE, reading)
        while len(self._kept) > _SNAPSHOTS or self._oldest_is_over():
            self._kept.popitem(last=False)
        return snapshot_id

    def find(self, snapshot_id: str) -> Reading:
        """The reading.  ResumeTokenTooOld when it is forgotten."""
        expires, reading = self._kept.get(snapshot_id, (timedelta(0), None))
        if reading is None or expires <= self._clock.elapsed():
            raise ResumeTokenTooOld("the listing that this page continues is over: list anew")
        return reading

    def _oldest_is_over(self) -> bool:
        expires, _ = next(iter(self._kept.values()))
        return expires <= self._clock.elapsed()
