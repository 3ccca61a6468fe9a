"""The driver of the simulated cloud: latency, quota, visibility and failures on top of the world.

iaas_service calls it as any cloud.  `calls` counts what a real cloud would have been asked, by kind
of call, for benchmarks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Final, Self

from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import (
    AlreadyExists,
    NotFound,
    QuotaExceeded,
    ShepherdError,
    Unavailable,
    Unsupported,
)

from ... import marker
from ...domain import (
    Address,
    Catalog,
    CatalogEntry,
    CatalogKind,
    Listing,
    Order,
    Quota,
    Spec,
    Vm,
    VmId,
    VmState,
)
from ...port import Changes, Trait
from ..placement import refuse_other_options
from .options import CallError, Lack, SimulatedOptions
from .world import DEFAULT_ZONE, CreateFailure, Record, SimulatedWorld

_TRAITS: Final = {
    Lack.EVENTS: Trait.EVENTS,
    Lack.REBOOT: Trait.REBOOT,
    Lack.REBUILD: Trait.REBUILD,
    Lack.CONSOLE: Trait.CONSOLE,
}


class SimulatedCloud:
    """A cloud in memory; give it a world to reach past it."""

    Options = SimulatedOptions

    def __init__(
        self,
        options: SimulatedOptions,
        *,
        provider: str,
        suite: Suite,
        clock: Clock,
        chance: Chance,
        world: SimulatedWorld | None = None,
    ) -> None:
        self.world = world or SimulatedWorld()
        self.calls: Counter[str] = Counter()
        self._options = options
        self._suite_id = suite.suite_id
        self._clock = clock
        self._chance = chance
        self._addresses = count()
        self._ageing: set[asyncio.Task[None]] = set()

    @property
    def traits(self) -> frozenset[Trait]:
        """Everything, but for what the options take away."""
        lacking = {_TRAITS[each] for each in self._options.lacks}
        if not self._options.idempotent:
            lacking.add(Trait.IDEMPOTENT_CREATE)
        return frozenset(Trait) - lacking

    @property
    def horizon(self) -> timedelta:
        """As the options say."""
        return self._options.horizon

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._ageing:
            task.cancel()

    async def list(self) -> Listing:
        """Every VM of the suite that is old enough to be seen and whose cell is up."""
        await self._call("list")
        self._fail_by_chance(self._options.failures.list_error)
        for _ in range(1, -(-len(self.world.records) // self._options.page_size)):
            await self._call("list")
        self._age()
        seen = self._clock.wall() - self._options.visibility_delay
        ours = [r for r in self.world.records.values() if self._is_ours(r)]
        old = [record for record in ours if record.vm.create_time <= seen]
        incomplete = self._incomplete_reason()
        vms = [r.vm for r in old if r.cell == 0] if incomplete else self.world.visible(old)
        return Listing(vms=vms, complete=not incomplete, incomplete_reason=incomplete)

    async def get(self, vm_ids: Sequence[VmId]) -> Sequence[Vm | ShepherdError]:
        """One call for all of them."""
        await self._call("get")
        self._age()
        return [self._read(vm_id) for vm_id in vm_ids]

    async def create(self, order: Order) -> Vm:
        """A new VM, or with idempotent creates the one that the same request made."""
        await self._call("create")
        refuse_other_options(order.spec.options)
        made = self.world.made.get(order.marker.request_id)
        if made is not None:
            return self._repeated(made, order)
        spec, zone = order.spec, order.spec.availability_zone or DEFAULT_ZONE
        self.world.require_supply(flavor=spec.flavor, zone=zone, image=spec.image)
        failure = self._create_failure()
        if failure and not failure.after_creating:
            raise failure.error
        quota = self._options.quota
        if quota is not None and len(self.world.records) >= quota:
            raise QuotaExceeded(f"the quota of {quota} VMs is used up", limit=str(quota))
        vm = self._make(order)
        if failure:
            raise failure.error
        return vm

    async def terminate(self, vm: Vm) -> bool:
        """Destroy it, at once or after the time that the options say."""
        await self._call("terminate")
        self._age()
        self._fail_by_chance(self._options.failures.terminate_error)
        record = self.world.records.get(vm.vm_id)
        if record is None:
            return False
        if record.undeletable:
            raise record.undeletable
        if record.gone_from is None:
            record.gone_from = self._clock.wall() + self._options.terminate_time
            deleting = replace(record.vm, state=VmState.DELETING, cloud_state="ACTIVE/deleting")
            self.world.change(record, deleting)
            self._age_after(self._options.terminate_time)
        return True

    async def reboot(self, vm: Vm) -> Vm:
        """It boots again."""
        self._require(Trait.REBOOT)
        await self._call("reboot")
        record = self._record(vm)
        return self._boot(record, replace(record.vm, cloud_state="REBOOT"))

    async def rebuild(self, vm: Vm, spec: Spec, *, spec_hash: str) -> Vm:
        """It boots another image."""
        self._require(Trait.REBUILD)
        await self._call("rebuild")
        record = self._record(vm)
        image = spec.image or record.vm.image
        self.world.require_supply(flavor=record.vm.flavor, zone=record.vm.zone, image=image)
        metadata = marker.rewritten(record.vm.metadata, spec_hash=spec_hash)
        rebuilt = replace(record.vm, cloud_state="REBUILD", image=image, metadata=metadata)
        return self._boot(record, rebuilt)

    async def console(self, vm: Vm, lines: int) -> str:
        """What the world has it say."""
        self._require(Trait.CONSOLE)
        await self._call("console")
        return self._record(vm).console

    async def catalog(self) -> Catalog:
        """One image, two flavors, one zone; any other name is accepted too."""
        await self._call("catalog")
        entries = [
            CatalogEntry(kind=CatalogKind.IMAGE, id="image-1", name="simulated"),
            CatalogEntry(kind=CatalogKind.FLAVOR, id="flavor-1", name="small"),
            CatalogEntry(kind=CatalogKind.FLAVOR, id="flavor-2", name="large"),
            CatalogEntry(kind=CatalogKind.ZONE, id="zone-1", name=DEFAULT_ZONE),
        ]
        used = Quota(resource="vms", limit=self._options.quota, used=len(self.world.records))
        return Catalog(entries=entries, quotas=[used])

    def watch(self) -> AbstractContextManager[Changes]:
        """What happens in the world."""
        self._require(Trait.EVENTS)
        return self.world.feed.subscribe()

    def _require(self, trait: Trait) -> None:
        if trait not in self.traits:
            raise Unsupported(f"this simulated cloud is not {trait.value}")

    async def _call(self, kind: str) -> None:
        self.calls[kind] += 1
        if self._options.latency:
            await self._clock.sleep(self._options.latency)

    def _age(self) -> None:
        self.world.age(self._clock.wall())

    def _age_after(self, duration: timedelta) -> None:
        """Whoever watches hears of a boot or an end when it happens, not at the next listing."""
        if not duration:
            self._age()
            return
        task = asyncio.create_task(self._sleep_and_age(duration))
        self._ageing.add(task)
        task.add_done_callback(self._ageing.discard)

    async def _sleep_and_age(self, duration: timedelta) -> None:
        await self._clock.sleep(duration)
        self._age()

    def _is_ours(self, record: Record) -> bool:
        return marker.read(record.vm.metadata, self._suite_id) is not None

    def _incomplete_reason(self) -> str:
        if self.world.cell_is_down and not self.world.cell_is_silent:
            return "a cell is down"
        if self._happens(self._options.failures.list_incomplete):
            return "a cell did not answer in time"
        return ""

    def _read(self, vm_id: VmId) -> Vm | ShepherdError:
        record = self.world.records.get(vm_id)
        if record is None:
            return NotFound(f"the cloud has no VM {vm_id}", vm_id=vm_id)
        if self.world.is_unreachable(record):
            return Unavailable("the cell of the VM is down", vm_id=vm_id)
        return record.vm

    def _repeated(self, made: Record, order: Order) -> Vm:
        if not made.order.is_same_vm_as(order):
            raise AlreadyExists(
                "the request id was used for another VM",
                reason="REQUEST_ID_REUSED",
                vm_id=made.vm.vm_id,
            )
        self._age()
        return made.vm

    def _make(self, order: Order) -> Vm:
        now = self._clock.wall()
        spec = order.spec
        vm = Vm(
            vm_id=VmId(self._chance.uuid()),
            name=order.name,
            state=VmState.PENDING,
            cloud_state="BUILD",
            create_time=now,
            metadata={**spec.metadata, **marker.write(order.marker)},
            addresses=(Address(ip=self._address(), network="simulated"),),
            image=spec.image,
            flavor=spec.flavor,
            zone=spec.availability_zone or DEFAULT_ZONE,
            key_name=spec.key_name,
        )
        running_from = now + self._options.boot_time
        record = self.world.add(
            vm, order, running_from=running_from, is_known_by_request=self._options.idempotent
        )
        self._age_after(self._options.boot_time)
        return record.vm

    def _address(self) -> str:
        network = self._options.address
        return str(network[next(self._addresses) % network.num_addresses])

    def _record(self, vm: Vm) -> Record:
        record = self.world.records.get(vm.vm_id)
        if record is None:
            raise NotFound(f"the cloud has no VM {vm.vm_id}", vm_id=vm.vm_id)
        return record

    def _boot(self, record: Record, vm: Vm) -> Vm:
        record.running_from = self._clock.wall() + self._options.boot_time
        self.world.change(record, replace(vm, state=VmState.PENDING, fault=""))
        self._age_after(self._options.boot_time)
        return record.vm

    def _create_failure(self) -> CreateFailure | None:
        if self.world.create_failures:
            return self.world.create_failures.popleft()
        chosen = self._options.failures.create_error
        if chosen is None or not self._happens(chosen.probability):
            return None
        return CreateFailure(error=chosen.reason.error(), after_creating=chosen.after_creating)

    def _fail_by_chance(self, chosen: CallError | None) -> None:
        if chosen and self._happens(chosen.probability):
            raise chosen.reason.error()

    def _happens(self, probability: float) -> bool:
        # Nothing is drawn for what cannot happen: options that are off do not change the story.
        return probability > 0 and self._chance.uniform(0, 1) < probability
