"""VmShepherd 1.6 in the same world: its algorithm, told anew from what it was seen to do.

A lock that an expired preset does not need, and that anybody may release; a list by name; creates
and deletes without record, key or limit. It must break the invariants in every seed, or they are
worth nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from iaas_service.domain import Marker, Order, Spec, Vm, VmState
from vmshepherd_kit.errors import ShepherdError

from .cloud import SimCloud
from .processes import SUITE_ID, Life, Process, Serves
from .suite import World

WORKER_INTERVAL = 5.0
MANAGE_EXPIRE = 120.0
FAILED_DELAY = 60.0
_DEAD = {VmState.TERMINATED, VmState.ERROR, VmState.STOPPED}


@dataclass
class Row:
    """What its database knows of a preset."""

    last_managed: float = 0.0
    is_locked: bool = False
    failed_checks: dict[str, float] = field(default_factory=dict)


class Predecessor(Process):
    """One worker of three."""

    def __init__(self, name: str, world: World, rows: dict[str, Row], **rest: Any) -> None:
        super().__init__(name, self._work, **rest)
        self.parts = None
        self._world = world
        self._rows = rows

    @asynccontextmanager
    async def _work(self, life: Life) -> AsyncIterator[Serves]:
        task = asyncio.ensure_future(self._for_ever(life))
        try:
            yield Serves(lambda servicer, server: None, self)
        finally:
            task.cancel()

    async def _for_ever(self, life: Life) -> None:
        cloud = SimCloud(self._world.truth)
        while True:
            for preset in sorted(self._world.ledger.counts):
                with suppress(ShepherdError):
                    await self._one(preset, cloud, life)
            await asyncio.sleep(WORKER_INTERVAL)

    async def _one(self, preset: str, cloud: SimCloud, life: Life) -> None:
        row = self._rows.setdefault(preset, Row())
        now = life.clock.wall().timestamp()
        if not (now - row.last_managed > MANAGE_EXPIRE or self._acquire_lock(row)):
            return
        await self._manage(preset, cloud, life)
        row.last_managed = life.clock.wall().timestamp()
        row.is_locked = False

    def _acquire_lock(self, row: Row) -> bool:
        was_free, row.is_locked = not row.is_locked, True
        return was_free

    async def _manage(self, preset: str, cloud: SimCloud, life: Life) -> None:
        vms = [vm for vm in (await cloud.list()).vms if vm.name == preset]
        for vm in (vm for vm in vms if vm.state in _DEAD):
            await cloud.terminate(vm)
        alive = [vm for vm in vms if vm.state not in _DEAD]
        for _ in range(self._world.ledger.count(preset) - len(alive)):
            with suppress(ShepherdError):
                await cloud.create(_order(preset, life))
        await self._healthcheck(preset, alive, cloud)

    async def _healthcheck(self, preset: str, vms: list[Vm], cloud: SimCloud) -> None:
        failed, now = self._rows[preset].failed_checks, self._world.kernel.now
        for vm in vms:
            if self._passes(vm):
                failed.pop(vm.vm_id, None)
            elif now - failed.setdefault(vm.vm_id, now) > FAILED_DELAY:
                await cloud.terminate(vm)

    def _passes(self, vm: Vm) -> bool:
        sight, body = self._world.sight, self._world.truth.bodies[vm.vm_id]
        return body.well_since is not None and not (sight.is_cut_off or sight.refuses_all)


def instead(world: World) -> None:
    """Put it in the place of the replicas."""
    rows: dict[str, Row] = {}
    workers: list[Any] = [
        Predecessor(
            f"replica-{number + 1}",
            world,
            rows,
            kernel=world.kernel,
            network=world.network,
            seed=number,
        )
        for number in range(3)
    ]
    world.replicas = workers


def _order(preset: str, life: Life) -> Order:
    mark = Marker(
        suite_id=SUITE_ID,
        preset=preset,
        request_id=life.chance.uuid(),
        fencing_token=1,
        spec_hash="",
    )
    return Order(name=preset, spec=Spec(image="good-1", flavor="small"), marker=mark)
