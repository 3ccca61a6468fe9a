"""What bench/replicas.py sees past the admin API, all the time: locks in the store, VMs in the
cloud.

Two loops: who holds what, ten times a second; which VMs there are, twice a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Final

from bench.replicas_fleet import Fleet, Life
from bench.replicas_takeover import Lock, Takeovers
from orchestrator.authority import lock_name
from orchestrator.homes import Member, home
from orchestrator.model import PresetName
from orchestrator.replicas import is_replica, share_of
from vmshepherd.iaas.v1 import iaas_service_pb2 as iaas
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd.iaas.v1.vm_pb2 import Vm
from vmshepherd.runtime.v1 import runtime_service_pb2 as runtime
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial
from vmshepherd_kit.errors import ShepherdError

PROVIDER: Final = "sim"
SURGE: Final = 1

_EVERY_LOCKS: Final = 0.1
_EVERY_VMS: Final = 0.5
_DEADLINE: Final = timedelta(seconds=5)
_PREFIX: Final = lock_name(PresetName(""))


class Store:
    """The runtime services, asked as one client more."""

    def __init__(self, fleet: Fleet, takeovers: Takeovers) -> None:
        self._fleet = fleet
        self._takeovers = takeovers
        self._lives: dict[str, Life] = {}
        self.longest_look = 0.0

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            begun = time.monotonic()
            await self.look()
            self.longest_look = max(self.longest_look, time.monotonic() - begun)
            await asyncio.sleep(max(0.0, begun + _EVERY_LOCKS - time.monotonic()))

    async def look(self) -> Mapping[str, Lock]:
        """Who holds what; nothing when no runtime service answers."""
        try:
            sessions, locks = await asyncio.gather(self.sessions(), self.locks())
        except ShepherdError:
            return {}
        self._lives |= {
            each.owner: self._fleet.lives[pid]
            for each in sessions
            if (pid := int(each.labels.get("pid", "0"))) in self._fleet.lives
        }
        found = {
            lock.name.removeprefix(_PREFIX): Lock(self._lives.get(lock.owner), lock.fencing_token)
            for lock in locks
            if lock.name.startswith(_PREFIX)
        }
        self._takeovers.look(time.monotonic(), found, partial(self._home, members_of(sessions)))
        return found

    async def sessions(self) -> list[runtime.Session]:
        """All live sessions."""
        answer = await dial.ask(
            self._stub().ListSessions, runtime.ListSessionsRequest(), deadline=_DEADLINE
        )
        return list(answer.sessions)

    async def locks(self) -> list[runtime.Lock]:
        """Every name ever locked."""
        found, request = list[runtime.Lock](), runtime.ListLocksRequest(page_size=1000)
        while True:
            page = await dial.ask(self._stub().ListLocks, request, deadline=_DEADLINE)
            found.extend(page.locks)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def holder(self, name: str) -> Life | None:
        """Whose a lock is."""
        owners = {lock.name: lock.owner for lock in await self.locks()}
        return self._lives.get(owners.get(name, ""))

    async def events(self) -> list[runtime.ListEventsResponse]:
        """Pages of the whole journal, oldest first."""
        pages = list[runtime.ListEventsResponse]()
        request = runtime.ListEventsRequest(ascending=True, page_size=1000)
        while True:
            pages.append(await dial.ask(self._stub().ListEvents, request, deadline=_DEADLINE))
            if not pages[-1].next_page_token:
                return pages
            request.page_token = pages[-1].next_page_token

    def _stub(self) -> RuntimeServiceStub:
        live = self._fleet.live("runtime") or self._fleet.of("runtime")
        return RuntimeServiceStub(live[0].channel)

    def _home(self, members: list[Member], preset: str) -> Life | None:
        return self._lives.get(home(PresetName(preset), members))


def members_of(sessions: list[runtime.Session]) -> list[Member]:
    """The replicas among sessions that presets fall to."""
    found = [Member(each.owner, share_of(each)) for each in sessions if is_replica(each)]
    return [each for each in found if each.share > 0] or found


class Cloud:
    """The VMs of the simulated cloud: too many, destroyed without a reason, made under old tokens.

    Who wants a VM gone says so in `wanted` before.
    """

    def __init__(self, fleet: Fleet, counts: Mapping[str, int]) -> None:
        self._stub = IaasServiceStub(fleet["iaas"].channel)
        self._counts = counts
        self.wanted: set[str] = set()
        self.vms: dict[str, Vm] = {}
        self.most = 0
        self.wrong: list[str] = []

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            self.judge(await self.listed())
            await asyncio.sleep(_EVERY_VMS)

    async def listed(self) -> list[Vm]:
        """All VMs that bear the suite's marker."""
        found, request = list[Vm](), iaas.ListVmsRequest(provider=PROVIDER, page_size=2000)
        while True:
            page = await dial.ask(self._stub.ListVms, request, deadline=_DEADLINE * 2)
            found.extend(page.vms)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def get(self, vm_id: str) -> iaas.VmResult:
        """One VM, or that it is gone."""
        request = iaas.GetVmsRequest(provider=PROVIDER, vm_ids=[vm_id])
        return (await dial.ask(self._stub.GetVms, request, deadline=_DEADLINE)).results[0]

    def judge(self, vms: list[Vm]) -> None:
        """Compare with what may be, and with what was seen before."""
        now = {vm.vm_id: vm for vm in vms}
        for vm_id in self.vms.keys() - now.keys() - self.wanted:
            self.wrong.append(f"{self.vms[vm_id].marker.preset}: {vm_id} was fine and is destroyed")
        self.vms = now
        for preset, number in Counter(vm.marker.preset for vm in vms).items():
            most = self._counts.get(preset, 0) + SURGE
            self.most = max(self.most, number - most + SURGE)
            if number > most:
                self.wrong.append(f"{preset}: {number} VMs, where {most} are the most")


def token_regressions(vms: list[Vm]) -> list[str]:
    """VMs that were made under an older token than one made before them."""
    found, newest = list[str](), dict[str, int]()
    for vm in sorted(vms, key=lambda vm: vm.create_time.ToNanoseconds()):
        preset, token = vm.marker.preset, vm.marker.fencing_token
        if token < newest.get(preset, 0):
            found.append(f"{preset}: {vm.vm_id} was made under {token}, after {newest[preset]}")
        newest[preset] = max(token, newest.get(preset, 0))
    return found
