"""The driver of OpenStack: the places of one provider as one cloud of the port.

iaas_service opens it and calls it.  Opening reads the configuration and nothing of the network.  A
VM is asked for where it was last seen, and everywhere when nobody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final, Self

from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import NotFound, ShepherdError, Unavailable

from ...domain import Catalog, Check, Listing, Order, Spec, Vm, VmId, VmState
from ...feed import Subscription
from ...port import Trait
from . import places, servers, wishes
from .catalog import catalog
from .memory import Memory
from .options import OpenstackOptions
from .site import Builder, Site
from .wire import Wire

# Logins wait for an answer; one that hangs must not hold up another place's.
_LOGINS: Final = 4
# From so many on, one listing is cheaper than asking for each.
_MANY: Final = 16


class OpenstackCloud:
    """The VMs of one provider."""

    Options = OpenstackOptions
    traits = frozenset({Trait.EVENTS, Trait.REBOOT, Trait.REBUILD, Trait.CONSOLE})

    def __init__(
        self,
        options: OpenstackOptions,
        *,
        provider: str,
        suite: Suite,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._options = options
        self._provider = provider
        self._memory = Memory()
        self._threads = ThreadPoolExecutor(_LOGINS, thread_name_prefix=f"login-{provider}")
        self._builder = Builder(
            provider=provider,
            options=options,
            suite=suite,
            memory=self._memory,
            clock=clock,
            threads=self._threads,
        )
        self._open = AsyncExitStack()
        self._watchers = 0
        self.sites: tuple[Site, ...] = ()
        """One for each place, in the order in which the options name them."""

    @property
    def horizon(self) -> timedelta:
        """As the options say."""
        return self._options.horizon

    async def __aenter__(self) -> Self:
        options = self._options
        trust = self._builder.credentials(options.places[0]).check()
        wire = Wire(
            connections=options.connections, timeout=options.http_timeout, context=trust.context()
        )
        await self._open.enter_async_context(wire)
        self.sites = tuple(self._builder.site(place, wire) for place in options.places)
        return self

    async def __aexit__(self, *_: object) -> None:
        for site in self.sites:
            await site.close()
        await self._open.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def list(self) -> Listing:
        """All VMs of the suite; not complete where a place or a cell cannot be read."""
        readings = await asyncio.gather(
            *(site.reader.list() for site in self.sites), return_exceptions=True
        )
        listings = [each for each in readings if isinstance(each, Listing)]
        errors = [each for each in readings if isinstance(each, BaseException)]
        for error in errors:
            if not listings or not isinstance(error, ShepherdError):
                raise error
        reasons = [listing.incomplete_reason for listing in listings if not listing.complete]
        reasons += [str(error) for error in errors]
        return Listing(
            vms=[vm for listing in listings for vm in listing.vms],
            complete=not reasons,
            incomplete_reason="; ".join(reasons),
        )

    async def get(self, vm_ids: Sequence[VmId]) -> Sequence[Vm | ShepherdError]:
        """Each by its id; many of them by a listing, and by their ids what it does not show."""
        listed = await self._listed() if len(vm_ids) >= _MANY else {}
        return await asyncio.gather(*(self._read(vm_id, listed) for vm_id in vm_ids))

    async def create(self, order: Order) -> Vm:
        """One POST, once everything that the order names is found."""
        site = self._chosen(order.spec)
        made = servers.vm(await site.creator.create(order))
        self._memory.saw(site.api, made)
        return made

    async def terminate(self, vm: Vm) -> bool:
        """Destroy it where it is."""
        site = await self._where(vm.vm_id)
        existed = site is not None and await site.deeds.terminate(vm)
        if not existed:
            self._memory.bury(vm.vm_id)
        return existed

    async def reboot(self, vm: Vm) -> Vm:
        """Restart it; hard, when its guest cannot be asked."""
        site = await self._where(vm.vm_id)
        return await _there(site, vm.vm_id).deeds.reboot(vm)

    async def rebuild(self, vm: Vm, spec: Spec, *, spec_hash: str) -> Vm:
        """Make its disk anew; it keeps its id and addresses."""
        site = await self._where(vm.vm_id)
        return await _there(site, vm.vm_id).deeds.rebuild(vm, spec, spec_hash=spec_hash)

    async def console(self, vm: Vm, lines: int) -> str:
        """As the hypervisor keeps it."""
        site = await self._where(vm.vm_id)
        return await _there(site, vm.vm_id).deeds.console(vm, lines)

    async def catalog(self) -> Catalog:
        """What the places offer; where there are several, each quota bears its place's name."""
        found = await asyncio.gather(*(catalog(site.inventory) for site in self.sites))
        if len(found) == 1:
            return found[0]
        offers = {(entry.kind, entry.id): entry for each in found for entry in each.entries}
        return Catalog(
            entries=list(offers.values()),
            quotas=[
                replace(quota, resource=f"{quota.resource} ({site.place})")
                for site, each in zip(self.sites, found, strict=True)
                for quota in each.quotas
            ],
        )

    @contextmanager
    def watch(self) -> Iterator[Subscription]:
        """Nova is asked for changes as long as anybody is within."""
        with self._memory.feed.subscribe() as subscription:
            self._watchers += 1
            for site in self.sites:
                site.watcher.begin()
            try:
                yield subscription
            finally:
                self._watchers -= 1
                if not self._watchers:
                    for site in self.sites:
                        site.watcher.end()

    async def check(self) -> Sequence[Check]:
        """Each place on its own, told by its name where there are several."""
        found = await asyncio.gather(*(site.examiner.check() for site in self.sites))
        if len(found) == 1:
            return found[0]
        return [
            replace(check, message=f"{site.place}: {check.message}")
            for site, checks in zip(self.sites, found, strict=True)
            for check in checks
        ]

    async def check_spec(self, preset: str, spec: Spec) -> str:
        """In the place that its options choose."""
        return await self._chosen(spec).examiner.check_spec(spec)

    def _chosen(self, spec: Spec) -> Site:
        wishes.options(spec.options)
        place = places.chosen(self._options.places, spec.options)
        return next(site for site in self.sites if site.place == place)

    async def _listed(self) -> dict[VmId, Vm]:
        try:
            listing = await self.list()
        except ShepherdError:
            # Each is asked for, and each has an error of its own.
            return {}
        return {vm.vm_id: vm for vm in listing.vms if vm.state is not VmState.UNKNOWN}

    async def _read(self, vm_id: VmId, listed: dict[VmId, Vm]) -> Vm | ShepherdError:
        if vm_id in listed:
            return listed[vm_id]
        try:
            found = await self._found(vm_id)
        except ShepherdError as e:
            return e
        return found[1]

    async def _found(self, vm_id: VmId) -> tuple[Site, Vm]:
        """Where it is, and as it is now.  NotFound when every place says so."""
        gone: NotFound | None = None
        for site in self._candidates(vm_id):
            try:
                vm = await site.reader.get(vm_id)
            except NotFound as e:
                gone = e
                continue
            if vm is None:
                raise Unavailable(
                    f"VM {vm_id} is in a cell of {site.api} that does not answer",
                    reason="CELL_DOWN",
                    vm_id=vm_id,
                )
            return site, vm
        self._memory.bury(vm_id)
        raise gone or NotFound(f"{self._provider} has no VM {vm_id}", vm_id=vm_id)

    def _candidates(self, vm_id: VmId) -> Sequence[Site]:
        known = self._memory.place(vm_id)
        return [site for site in self.sites if site.api is known] or self.sites

    async def _where(self, vm_id: VmId) -> Site | None:
        """The place of a VM; None when no place has it."""
        candidates = self._candidates(vm_id)
        if len(candidates) == 1:
            return candidates[0]
        try:
            return (await self._found(vm_id))[0]
        except NotFound:
            return None


def _there(site: Site | None, vm_id: VmId) -> Site:
    if site is None:
        raise NotFound(f"there is no VM {vm_id}", vm_id=vm_id)
    return site
