"""One reading of a place: all of our VMs in it, and whether that is all.

`cloud` asks.  Nova is never given a filter: with one, or with a limit, it silently leaves out
servers of cells that are down.  Foreign servers are dropped page by page.  What was ours a moment
ago and is not listed is asked for by its id: only Nova's 404 proves that it is gone.  Of one that
was ordered within the horizon a list may not know yet; one that lacks an older one is not whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from vmshepherd_kit import log
from vmshepherd_kit.errors import BadRequest, NotFound, ShepherdError, Unavailable

from ... import marker
from ...domain import Listing, Vm, VmId, VmState
from . import failures, servers, states
from .api import Api
from .memory import Memory

MICROVERSION: Final = "2.96"
"""The newest one that the driver knows."""
_SHOWS_DOWN_CELLS: Final = 69
_ATTEMPTS: Final = 4
# Asked for side by side; one that cannot be shown makes the others needless.
_AT_ONCE: Final = 8
_NAMED: Final = 3
# A fault is written a moment after the state; of what somebody else set to ERROR there is none.
_LONG_ENOUGH: Final = timedelta(minutes=1)

_log = log.get("iaas.openstack")


@dataclass(kw_only=True, slots=True)
class _Reading:
    ours: dict[VmId, Vm] = field(default_factory=dict)
    hidden: set[VmId] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)


class Reader:
    """Reads the servers of one place."""

    def __init__(
        self,
        api: Api,
        memory: Memory,
        *,
        suite_id: str,
        page_size: int | None,
        horizon: timedelta,
    ) -> None:
        self._api = api
        self._horizon = horizon
        self._memory = memory
        self._suite_id = suite_id
        self._params: Mapping[str, int] = {"limit": page_size} if page_size else {}
        self._has_told = False
        # VMs that Nova gave up without a word, and since when.
        self._dumb: dict[VmId, datetime] = {}

    async def list(self) -> Listing:
        """All VMs of the suite in this place.  Raises what the cloud's answers mean."""
        before = self._memory.of(self._api)
        reading = await self._whole(await self.version())
        for vm_id, vm in reading.ours.items():
            reading.ours[vm_id] = self._memory.saw(self._api, vm)
        await self._explain(reading)
        if reading.hidden:
            reading.reasons.append(_told(reading.hidden, "in a cell that does not answer"))
        missing = [vm_id for vm_id in before if vm_id not in reading.ours]
        await self._confirm(missing, reading)
        unseen = map(self._unseen, before)
        shown = [vm for vm in unseen if vm and vm.vm_id not in reading.ours]
        return Listing(
            vms=[*reading.ours.values(), *shown],
            complete=not reading.reasons,
            incomplete_reason="; ".join(f"{self._api}: {reason}" for reason in reading.reasons),
        )

    async def get(self, vm_id: VmId) -> Vm | None:
        """The VM as it is now, whosesoever it is; None when its cell does not answer.

        Raises NotFound, or what the cloud's answer means.
        """
        server = await self.server(vm_id)
        if states.is_partial(server):
            self._memory.exists(self._api, vm_id)
            return None
        return self._noted(servers.vm(server))

    async def server(self, vm_id: VmId) -> Mapping[str, Any]:
        """The same, in Nova's own words."""
        if not servers.is_id(vm_id):
            raise _gone(self._api, vm_id)
        version = await self.version()
        try:
            told = await self._api.get("compute", f"/servers/{vm_id}", microversion=version)
        except NotFound as e:
            meant = failures.gone(e, vm_id)
            if meant is e:
                raise
            raise meant from e
        server: Mapping[str, Any] = self._api.part(told, "server", "compute")
        if states.is_reclaimed(server):
            raise _gone(self._api, vm_id)
        return server

    async def changed(self, since: str) -> Sequence[Mapping[str, Any]]:
        """Servers that changed since then, deleted ones among them: a hint, and never all."""
        pages = self._api.pages(
            "compute",
            "/servers/detail",
            "servers",
            params={"changes-since": since},
            microversion=await self.version(),
        )
        return [server async for page in pages for server in page]

    def is_ours(self, metadata: Mapping[str, str]) -> bool:
        """Whether they bear the marker of the suite."""
        return marker.read(metadata, self._suite_id) is not None

    async def version(self) -> str:
        """The microversion that reading is done in."""
        version = await self._api.microversion(MICROVERSION)
        if not self._has_told:
            self._has_told = True
            if int(version.partition(".")[2]) < _SHOWS_DOWN_CELLS:
                _log.warning(
                    "this cloud does not tell of cells that are down",
                    cloud=str(self._api),
                    microversion=version,
                    needed=f"2.{_SHOWS_DOWN_CELLS}",
                )
        return version

    async def _whole(self, version: str) -> _Reading:
        """All pages; anew when the server that ended one is gone before the next is asked for."""
        for _ in range(_ATTEMPTS):
            try:
                return await self._paged(version)
            except (BadRequest, NotFound) as e:
                if "marker" not in e.facts.get("said", "").lower():
                    raise
        raise Unavailable(
            f"Nova of {self._api} could not be listed: {_ATTEMPTS} times servers went away between "
            "two pages; it goes on by itself",
            reason="CLOUD_BUSY",
        )

    async def _paged(self, version: str) -> _Reading:
        reading = _Reading()
        pages = self._api.pages(
            "compute", "/servers/detail", "servers", params=self._params, microversion=version
        )
        async for page in pages:
            self._sort(page, reading)
        return reading

    def _sort(self, page: Iterable[Mapping[str, Any]], reading: _Reading) -> None:
        for server in page:
            if states.is_reclaimed(server):
                continue
            if states.is_partial(server):
                reading.hidden.add(VmId(server["id"]))
            elif self.is_ours(server["metadata"]):
                vm = servers.vm(server)
                reading.ours[vm.vm_id] = vm

    async def _explain(self, reading: _Reading) -> None:
        """Ask for the faults of what Nova gave up: a listing tells those of one cell alone."""
        now = self._api.now()
        dumb = [vm for vm in reading.ours.values() if vm.state is VmState.ERROR and not vm.fault]
        self._dumb = {vm.vm_id: self._dumb.get(vm.vm_id, now) for vm in dumb}
        some = [vm_id for vm_id, since in self._dumb.items() if now - since <= _LONG_ENOUGH]
        asked = (self._explain_one(vm_id, reading) for vm_id in some[:_AT_ONCE])
        await asyncio.gather(*asked)

    async def _explain_one(self, vm_id: VmId, reading: _Reading) -> None:
        # A fault that cannot be told is no fault of the listing.
        with suppress(ShepherdError):
            if (vm := await self.get(vm_id)) is not None:
                reading.ours[vm_id] = vm

    async def _confirm(self, missing: Sequence[VmId], reading: _Reading) -> None:
        """Ask for what was there before by its id, until it is clear that not all can be seen."""
        left = iter(missing)
        while not reading.reasons and (some := list(islice(left, _AT_ONCE))):
            await asyncio.gather(*(self._confirm_one(vm_id, reading) for vm_id in some))

    async def _confirm_one(self, vm_id: VmId, reading: _Reading) -> None:
        try:
            vm = await self.get(vm_id)
        except NotFound:
            self._memory.bury(vm_id)
        except ShepherdError as e:
            reading.reasons.append(f"VM {vm_id} is not listed, and asked for it {e.message}")
        else:
            if vm is None:
                reading.reasons.append(f"VM {vm_id} is in a cell that does not answer")
            elif self.is_ours(vm.metadata):
                reading.ours[vm_id] = vm
                if self._api.now() - vm.create_time >= self._horizon:
                    reading.reasons.append(f"VM {vm_id} exists and was not listed")

    def _noted(self, vm: Vm) -> Vm:
        if self.is_ours(vm.metadata):
            return self._memory.saw(self._api, vm)
        self._memory.forget(vm.vm_id)
        return vm

    def _unseen(self, vm_id: VmId) -> Vm | None:
        """A VM of which nothing is known at present but that it was ours."""
        vm = self._memory.last(vm_id)
        return vm and replace(vm, state=VmState.UNKNOWN, cloud_state="UNKNOWN", fault="")


def _told(vm_ids: Iterable[VmId], what: str) -> str:
    """The first of them by name; the others are counted."""
    ordered = sorted(vm_ids)
    named = ", ".join(ordered[:_NAMED])
    more = len(ordered) - _NAMED
    number = f"{len(ordered)} servers are" if len(ordered) > 1 else "1 server is"
    return f"{number} {what}: {named}" + (f" and {more} more" if more > 0 else "")


def _gone(api: Api, vm_id: VmId) -> NotFound:
    return NotFound(f"{api} has no server {vm_id}", vm_id=vm_id)
