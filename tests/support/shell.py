"""The orchestrator's shell without a wire: a store in memory, and clouds that do as they are told.

They stand where the clients stand (`orchestrator.clients`); time is the fake clock's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from orchestrator.authority import Authority
from orchestrator.clients.calls import Listing, Rebuild
from orchestrator.clients.presets import declared
from orchestrator.clients.runtime import Held, Lock, Wish, Write
from orchestrator.config import Session
from orchestrator.journal import Journal
from orchestrator.model import Cloud, Method, PresetName, Probe, Vm, VmId, VmState
from runtime_service import convert, domain
from runtime_service.drivers.memory import MemoryOptions, MemoryRuntime
from vmshepherd.iaas.v1 import iaas_service_pb2 as iaas
from vmshepherd.preset.v1 import preset_pb2
from vmshepherd.runtime.v1 import event_pb2
from vmshepherd.runtime.v1 import runtime_service_pb2 as runtime
from vmshepherd_kit.clock import SeededChance
from vmshepherd_kit.errors import ShepherdError, StaleFencingToken, VersionMismatch
from vmshepherd_kit.testing import FakeClock

WEB = PresetName("web")


class Store:
    """The client of the runtime service, over a store in memory."""

    def __init__(self, clock: FakeClock, store: MemoryRuntime | None = None) -> None:
        self.store = store or MemoryRuntime(MemoryOptions(), clock)
        self.calls: Counter[str] = Counter()
        self.refusing: dict[str, ShepherdError] = {}
        # What is called instead of the method, before it.
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        # And before its answer comes.
        self.after: dict[str, Callable[[], Awaitable[None]]] = {}
        self.events: list[event_pb2.Event] = []
        self._sessions = 0

    async def _door(self, name: str) -> None:
        self.calls[name] += 1
        await asyncio.sleep(0)
        if name in self.before:
            await self.before[name]()
        if name in self.refusing:
            raise self.refusing[name]

    async def open_session(
        self,
        owner: str,
        *,
        ttl: timedelta,
        lock_delay: timedelta,
        labels: Mapping[str, str],
        deadline: timedelta,
    ) -> str:
        await self._door("open_session")
        self._sessions += 1
        name = domain.SessionId(f"{owner}-{self._sessions}")
        new = domain.NewSession(
            session_id=name, owner=owner, ttl=ttl, lock_delay=lock_delay, labels=labels
        )
        return (await self.store.open_session(new)).session_id

    async def refresh_session(
        self, session_id: str, *, labels: Mapping[str, str], deadline: timedelta
    ) -> None:
        await self._door("refresh_session")
        await self.store.refresh_session(domain.SessionId(session_id), labels)

    async def close_session(self, session_id: str, *, deadline: timedelta) -> None:
        await self._door("close_session")
        await self.store.close_session(domain.SessionId(session_id))

    async def try_lock(self, wish: Wish) -> int | Held:
        await self._door("try_lock")
        wanted = domain.LockWish(wish.name, wish.floor)
        [grant] = await self.store.try_lock(domain.SessionId(wish.session_id), [wanted])
        if "try_lock" in self.after:
            await self.after["try_lock"]()
        if isinstance(grant, domain.Held):
            return Held(grant.owner, grant.remaining)
        return grant.fencing_token

    async def unlock(self, lock: Lock) -> bool:
        await self._door("unlock")
        held = domain.HeldLock(lock.name, domain.FencingToken(lock.fencing_token))
        [released] = await self.store.unlock(domain.SessionId(lock.session_id), [held])
        return released

    async def sessions(self) -> list[runtime.Session]:
        await self._door("sessions")
        page = await self.store.list_sessions(after=0, limit=1000)
        return [convert.from_session(session, is_owner=False) for session in page.items]

    async def locks(self) -> list[runtime.Lock]:
        await self._door("locks")
        page = await self.store.list_locks(after="", limit=1000)
        return [convert.from_lock(lock) for lock in page.items]

    async def get_state(self, name: str) -> runtime.State | None:
        [state] = await self.store.get_states([name])
        # The reading is of the moment before whatever holds the answer up.
        await self._door("get_state")
        if state is None:
            return None
        return runtime.State(name=state.name, value=state.value, version=state.version)

    get_small_state = get_state

    async def states(self, prefix: str) -> list[runtime.State]:
        await self._door("states")
        return [
            runtime.State(name=name, value=state.value, version=state.version)
            for name, state in sorted(self.store._states.items())
            if name.startswith(prefix)
        ]

    async def put_state(self, write: Write) -> int:
        await self._door("put_state")
        wanted = domain.StateWrite(
            name=write.name,
            value=write.value,
            fencing_token=domain.FencingToken(write.fencing_token),
            expected_version=write.expected_version,
        )
        [done] = await self.store.put_states(domain.SessionId(write.session_id), [wanted])
        if isinstance(done, domain.Written):
            return done.version
        if isinstance(done, domain.StaleToken):
            raise StaleFencingToken("somebody newer holds it", floor=str(done.newest))
        raise VersionMismatch("somebody wrote it meanwhile")

    async def append(self, events: Sequence[event_pb2.Event]) -> None:
        if events:
            await self._door("append")
            self.events.extend(events)

    def told(self, kind: str) -> list[event_pb2.Event]:
        """Events of one kind."""
        return [event for event in self.events if event.kind == kind]


@dataclass
class FakeIaas:
    """The client of the iaas services: a cloud in a dict."""

    clock: FakeClock
    suite_id: str = "suite"
    vms: dict[VmId, Vm] = field(default_factory=dict)
    hidden: set[VmId] = field(default_factory=set)
    unreadable: ShepherdError | None = None
    incomplete: str = ""
    unlistable: ShepherdError | None = None
    idempotent: bool = True
    # What becomes of the creates, in turn; nothing: they succeed.
    create_errors: list[ShepherdError | None] = field(default_factory=list)
    terminate_errors: list[ShepherdError | None] = field(default_factory=list)
    before_create: Callable[[], Awaitable[None]] | None = None
    created: list[iaas.VmCreate] = field(default_factory=list)
    terminated: list[iaas.VmMutation] = field(default_factory=list)
    # What becomes of the repairs, in turn; nothing: they succeed.
    repair_errors: list[ShepherdError | None] = field(default_factory=list)
    rebooted: list[iaas.VmMutation] = field(default_factory=list)
    rebuilt: list[Rebuild] = field(default_factory=list)
    consoles: dict[VmId, str] = field(default_factory=dict)
    deadlines: list[timedelta] = field(default_factory=list)

    async def cloud(self, name: str) -> tuple[str, Cloud]:
        return name or "sim", Cloud(
            idempotent=self.idempotent,
            horizon=timedelta(minutes=2),
            methods=frozenset(Method),
            has_console=bool(self.consoles),
        )

    async def list_vms(self, provider: str, preset: PresetName) -> Listing:
        if self.unlistable:
            raise self.unlistable
        found = tuple(vm for vm_id, vm in self.vms.items() if vm_id not in self.hidden)
        return Listing(found, not self.incomplete, self.incomplete)

    async def get_vm(self, provider: str, preset: PresetName, vm_id: VmId) -> Vm | None:
        if self.unreadable:
            raise self.unreadable
        return self.vms.get(vm_id)

    async def create(self, provider: str, create: iaas.VmCreate, *, deadline: timedelta) -> Vm:
        self.created.append(create)
        self.deadlines.append(deadline)
        error = self.create_errors.pop(0) if self.create_errors else None
        if self.before_create:
            await self.before_create()
        if error:
            raise error
        made = Vm(
            vm_id=VmId(f"vm-of-{create.name}"),
            state=VmState.RUNNING,
            name=create.name,
            created=self.clock.wall(),
            request_id=create.request_id,  # type: ignore[arg-type]
            fencing_token=create.fencing_token,
            spec_hash=create.spec_hash,
        )
        self.vms[made.vm_id] = made
        return made

    async def terminate(
        self, provider: str, mutation: iaas.VmMutation, *, deadline: timedelta
    ) -> bool:
        self.terminated.append(mutation)
        self.deadlines.append(deadline)
        error = self.terminate_errors.pop(0) if self.terminate_errors else None
        if error:
            raise error
        return self.vms.pop(VmId(mutation.vm_id), None) is not None

    async def reboot(
        self, provider: str, mutation: iaas.VmMutation, *, deadline: timedelta
    ) -> None:
        self.rebooted.append(mutation)
        self._repair(deadline)

    async def rebuild(self, provider: str, rebuild: Rebuild, *, deadline: timedelta) -> None:
        self.rebuilt.append(rebuild)
        self._repair(deadline)

    def _repair(self, deadline: timedelta) -> None:
        self.deadlines.append(deadline)
        if error := self.repair_errors.pop(0) if self.repair_errors else None:
            raise error

    async def console(self, provider: str, preset: PresetName, vm_id: VmId, lines: int) -> str:
        return self.consoles.get(vm_id, "")


@dataclass
class FakeHealth:
    """The client of the health service."""

    probes: dict[str, Probe] = field(default_factory=dict)
    error: ShepherdError | None = None

    async def probe(self, check: Any, targets: Sequence[Any]) -> dict[str, Probe]:
        if self.error:
            raise self.error
        wanted = {target.vm_id for target in targets}
        return {vm_id: probe for vm_id, probe in self.probes.items() if vm_id in wanted}


def preset(count: int = 2, name: str = "web", **spec: Any) -> Any:
    """A preset as its source declares it."""
    message = preset_pb2.Preset(name=name, spec_hash="spec-1")
    message.spec.MergeFrom(preset_pb2.PresetSpec(count=count, flavor="small", **spec))
    return declared(message)


def authority(
    store: Store,
    clock: FakeClock,
    *,
    owner: str = "me",
    changed: Callable[[bool], object] = bool,
    labels: Callable[[], Mapping[str, str]] = dict,
) -> Authority:
    """The authority of one replica."""
    return Authority(
        store,  # type: ignore[arg-type]
        owner=owner,
        timing=Session(),
        labels=labels,
        clock=clock,
        changed=lambda is_open: (changed(is_open), None)[1],
    )


def journal(store: Store, clock: FakeClock) -> Journal:
    """A journal into that store."""
    return Journal(store, actor="me", clock=clock, chance=SeededChance(1))  # type: ignore[arg-type]


async def soon(clock: FakeClock) -> None:
    """Let everybody work who is ready, without time going on."""
    await clock.advance(timedelta(0))
