"""The driver of the `process` cloud: folders, processes and addresses become VMs.

iaas_service calls it as any cloud.  Each mutation of a VM runs to its end even when its caller goes
away, one at a time a VM.  It signals no process but its own VMs'.
"""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final, Self, TypeVar
from weakref import WeakValueDictionary

from vmshepherd_kit import log
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import (
    NotFound,
    OutcomeUnknown,
    Refused,
    ShepherdError,
    Unavailable,
)

from ... import marker
from ...domain import (
    Catalog,
    CatalogEntry,
    CatalogKind,
    Changed,
    Gone,
    Listing,
    Order,
    Quota,
    Spec,
    Vm,
    VmId,
    VmState,
)
from ...feed import Feed
from ...port import Changes, Trait
from ..placement import refuse_other_options
from . import launch, proc
from .addresses import Addresses
from .folder import Facts, Folder, Root, fingerprint
from .machine import Machine, removed, require_same
from .options import ProcessOptions
from .proc import Life, Process
from .strays import Strays
from .watch import Watch

T = TypeVar("T")

# The id of a VM follows from its request, so that a repeated create finds what it made before.
_IDS: Final = uuid.UUID("6d1c3a1e-6c3f-5b0a-9d6e-5a2f4f0f2c11")
_REMEMBERED: Final = timedelta(days=1)
_KILL_PATIENCE: Final = timedelta(seconds=5)
_ROOT_PATIENCE: Final = timedelta(seconds=2)
_POLL: Final = timedelta(milliseconds=5)
_THREADS: Final = 8
# So many VMs that keep a listing from being whole are named.
_REASONS: Final = 3

_log = log.get("iaas.process")


class ProcessCloud:
    """The VMs beneath one root."""

    Options = ProcessOptions
    traits = frozenset(Trait)
    horizon = timedelta(0)

    def __init__(
        self,
        options: ProcessOptions,
        *,
        provider: str,
        suite: Suite,
        clock: Clock,
        chance: Chance,
    ) -> None:
        own = options.root.expanduser() if options.root else suite.state_dir / "vms"
        path = suite.base_dir / own
        self.root = Root(path.resolve())
        self._options = options
        self._suite_id = suite.suite_id
        self._provider = provider
        self._clock = clock
        self._feed = Feed()
        self._machines: dict[VmId, Machine] = {}
        self._unreadable: dict[str, str] = {}
        self._strays = Strays(self.root)
        self._locks: WeakValueDictionary[VmId, asyncio.Lock] = WeakValueDictionary()
        self._mutations: set[asyncio.Task[Any]] = set()
        self._watch = Watch(self._process_ended)
        self._addresses = Addresses(self.root.path, options.port)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="process-vms")
        self._held = ExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._hold_root()
            await self._in_thread(self._find)
        except OSError as e:
            self._held.close()
            raise Unavailable(f"VMs cannot be kept in {self.root.path}: {e.strerror}") from e
        self._watch_new()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._mutations, return_exceptions=True)
        self._watch.close()
        self._threads.shutdown()
        self._held.close()

    async def list(self) -> Listing:
        """All VMs of this suite; reads /proc, and of each folder no more than a time stamp."""
        vms = await self._in_thread(self._read_all)
        self._watch_new()
        for machine in [m for m in self._machines.values() if m.is_lost()]:
            self._forget(machine)
        return Listing(
            vms=[vm for vm in vms if marker.read(vm.metadata, self._suite_id)],
            complete=not (unclear := self._unclear()),
            incomplete_reason=_told(list(unclear.values())),
        )

    async def get(self, vm_ids: Sequence[VmId]) -> Sequence[Vm | ShepherdError]:
        """From the folder and the kernel."""
        return await self._in_thread(lambda: [self._read_one(vm_id) for vm_id in vm_ids])

    async def create(self, order: Order) -> Vm:
        """A folder and a process in it; repeated, the same."""
        refuse_other_options(order.spec.options)
        launch.flavor(self._options, order.spec)
        vm_id = VmId(str(uuid.uuid5(_IDS, order.marker.request_id)))
        return await self._to_the_end(vm_id, self._create(vm_id, order))

    async def terminate(self, vm: Vm) -> bool:
        """End its processes, remove its folder."""
        return await self._to_the_end(vm.vm_id, self._terminate(vm.vm_id))

    async def reboot(self, vm: Vm) -> Vm:
        """End its processes, start anew in the same folder."""
        return await self._to_the_end(vm.vm_id, self._reboot(vm.vm_id))

    async def rebuild(self, vm: Vm, spec: Spec, *, spec_hash: str) -> Vm:
        """End its processes, empty its folder, start what the spec says."""
        return await self._to_the_end(vm.vm_id, self._rebuild(vm.vm_id, spec, spec_hash))

    async def console(self, vm: Vm, lines: int) -> str:
        """The end of its log; reboots and rebuilds go on in the same."""
        machine = self._machines.get(vm.vm_id)
        if machine is None:
            raise _no_such(vm.vm_id)
        return await self._in_thread(partial(machine.folder.console, lines))

    async def catalog(self) -> Catalog:
        """The flavors of the configuration."""
        names = list(self._options.flavors) or ["default"]
        flavors = [CatalogEntry(kind=CatalogKind.FLAVOR, id=name, name=name) for name in names]
        used = Quota(resource="vms", limit=None, used=len(self._machines))
        return Catalog(entries=flavors, quotas=[used])

    def watch(self) -> AbstractContextManager[Changes]:
        """Creations, ends and removals; nobody tells us of SIGSTOP."""
        return self._feed.subscribe()

    async def _hold_root(self) -> None:
        """Be alone in the root.  Of a service that was killed, half started children may hold it
        for a moment.
        """
        end = self._clock.elapsed() + _ROOT_PATIENCE
        while True:
            try:
                self._held.enter_context(self.root.held())
            except BlockingIOError as e:
                if self._clock.elapsed() >= end:
                    raise self._root_in_use() from e
                await self._clock.sleep(_POLL)
            else:
                return

    def _root_in_use(self) -> Refused:
        return Refused(
            f"another iaas_service, or another provider, keeps its VMs in {self.root.path}: "
            f"stop it, or set iaas.providers.{self._provider}.options.root",
            reason="ROOT_IN_USE",
        )

    async def _create(self, vm_id: VmId, order: Order) -> Vm:
        machine = self._machines.get(vm_id)
        if machine is None:
            ended = await self._in_thread(partial(self.root.ended, vm_id))
            if ended is not None:
                require_same(ended, order)
                return removed(ended)
            machine = await self._make(vm_id, order)
        require_same(machine.facts, order)
        return await self._in_thread(machine.read)

    async def _make(self, vm_id: VmId, order: Order) -> Machine:
        address = self._addresses.take()
        facts = self._facts(vm_id, order, address)
        try:
            folder = await self._in_thread(partial(self.root.make, facts, order.spec.user_data))
            process = await self._in_thread(partial(self._start_or_discard, folder, facts))
        except ShepherdError:
            self._addresses.give_back(address)
            raise
        machine = Machine(facts=facts, folder=folder, process=process)
        self._machines[vm_id] = machine
        self._watch_new()
        self._publish(machine)
        return machine

    def _facts(self, vm_id: VmId, order: Order, address: str) -> Facts:
        spec = order.spec
        return Facts(
            vm_id=vm_id,
            name=order.name,
            create_time=self._clock.wall().isoformat(timespec="microseconds"),
            address=address,
            flavor=spec.flavor,
            image=spec.image,
            zone=spec.availability_zone,
            key_name=spec.key_name,
            metadata={**spec.metadata, **marker.write(order.marker)},
            fingerprint=fingerprint(order),
            argv=launch.command(self._options, spec, name=order.name, address=address),
            env=launch.flavor(self._options, spec).env,
        )

    async def _terminate(self, vm_id: VmId) -> bool:
        machine = self._machines.get(vm_id)
        if machine is None:
            return False
        with _doing(machine, VmState.DELETING):
            await self._end(machine)
            await self._in_thread(partial(self.root.remove, vm_id, self._clock.wall()))
        self._forget(machine)
        return True

    async def _reboot(self, vm_id: VmId) -> Vm:
        machine = self._machines.get(vm_id)
        if machine is None:
            raise _no_such(vm_id)
        with _doing(machine, VmState.TRANSITIONING):
            await self._end(machine)
            await self._restart(machine)
        return await self._renewed(machine)

    async def _rebuild(self, vm_id: VmId, spec: Spec, spec_hash: str) -> Vm:
        machine = self._machines.get(vm_id)
        if machine is None:
            raise _no_such(vm_id)
        facts = launch.rebuilt(self._options, machine.facts, spec, spec_hash=spec_hash)
        with _doing(machine, VmState.PENDING):
            # What may fail for want of room fails while the VM still runs.
            await self._in_thread(partial(machine.folder.prepare_rebuild, facts, spec.user_data))
            try:
                await self._end(machine)
            except ShepherdError:
                await self._in_thread(machine.folder.forget_rebuild)
                raise
            await self._in_thread(partial(_empty, machine.folder))
            machine.facts = facts
            await self._restart(machine)
        return await self._renewed(machine)

    async def _restart(self, machine: Machine) -> None:
        """Start it anew.  OutcomeUnknown: it has ended, and that is all that is done."""
        try:
            await self._in_thread(machine.folder.forget_process)
            start = partial(self._start, machine.folder, machine.facts)
            machine.process = await self._in_thread(start)
        except (ShepherdError, OSError) as e:
            raise OutcomeUnknown(f"the VM was ended and cannot be started anew: {e}") from e

    async def _renewed(self, machine: Machine) -> Vm:
        self._watch_new()
        self._publish(machine)
        return await self._in_thread(machine.read)

    async def _end(self, machine: Machine) -> None:
        """End all processes of a VM: politely, then not.  Unavailable when one cannot be killed."""
        process = machine.current_process()
        if process and process.life() is not Life.ENDED:
            process.signal_group(signal.SIGTERM)
            process.signal_group(signal.SIGCONT)
            if not await self._ends(process, self._options.patience):
                process.signal_group(signal.SIGKILL)
                if not await self._ends(process, _KILL_PATIENCE):
                    raise Unavailable(f"process {process.pid} cannot be killed")
        await self._end_rest(machine)

    async def _end_rest(self, machine: Machine) -> None:
        """What is told to die still holds the folder for a moment, and may write into it."""
        end = self._clock.elapsed() + _KILL_PATIENCE
        while await self._in_thread(machine.kill_rest) and self._clock.elapsed() < end:
            await self._clock.sleep(_POLL)

    async def _ends(self, process: Process, patience: timedelta) -> bool:
        end = self._clock.elapsed() + patience
        while process.life() is not Life.ENDED:
            if self._clock.elapsed() >= end:
                return False
            await self._clock.sleep(_POLL)
        return True

    def _start(self, folder: Folder, facts: Facts) -> Process:
        environment = launch.environment(folder, facts, self._options.port)
        return launch.start(folder, facts, environment)

    def _start_or_discard(self, folder: Folder, facts: Facts) -> Process:
        try:
            return self._start(folder, facts)
        except ShepherdError:
            # Nothing was started: nothing is left.
            self.root.discard(facts.vm_id)
            raise

    def _find(self) -> None:
        """Find the VMs of an earlier life."""
        self.root.sweep(self._clock.wall() - _REMEMBERED)
        for name in sorted(self.root.names()):
            self._adopt(name)
        self._strays.find()

    def _adopt(self, name: str) -> None:
        folder = self.root.folder(name)
        self._unreadable.pop(name, None)
        try:
            facts = folder.facts()
        except ValueError as e:
            _log.warning("vm folder is unreadable", folder=str(folder.path), error=str(e))
            if folder.is_alive():
                self._unreadable[name] = str(e)
            return
        machine = Machine(facts=facts, folder=folder, process=folder.process())
        self._machines[facts.vm_id] = machine
        self._addresses.keep(facts.address)

    def _read_all(self) -> Sequence[Vm]:
        for name in [*self._unreadable, *self._strays.returned()]:
            self._adopt(name)
        return [machine.read() for machine in list(self._machines.values())]

    def _read_one(self, vm_id: VmId) -> Vm | ShepherdError:
        machine = self._machines.get(vm_id)
        if machine:
            return machine.read()
        if why := self._unclear().get(vm_id):
            return Unavailable(why)
        return _no_such(vm_id)

    def _unclear(self) -> dict[str, str]:
        """VMs that run and cannot be shown, and why."""
        return {**self._unreadable, **self._strays.reasons()}

    def _watch_new(self) -> None:
        for machine in list(self._machines.values()):
            if machine.process and machine.process != machine.watched:
                machine.watched = machine.process
                self._watch.begin(machine.process)

    def _process_ended(self, process: Process) -> None:
        status = process.reap()
        machine = next((m for m in self._machines.values() if m.process == process), None)
        if machine is None:
            return
        if status is not None:
            machine.folder.note_end(proc.describe(status))
        self._publish(machine)

    def _publish(self, machine: Machine) -> None:
        if self._feed.is_heard:
            self._feed.publish(Changed(vm=machine.read()))

    def _forget(self, machine: Machine) -> None:
        self._machines.pop(machine.facts.vm_id, None)
        self._addresses.give_back(machine.facts.address)
        if machine.process:
            machine.process.reap()
        self._feed.publish(Gone(vm=removed(machine.facts)))

    async def _to_the_end(self, vm_id: VmId, work: Coroutine[Any, Any, T]) -> T:
        async def alone() -> T:
            async with self._locks.setdefault(vm_id, asyncio.Lock()):
                return await work

        task = asyncio.create_task(alone())
        self._mutations.add(task)
        task.add_done_callback(self._mutations.discard)
        return await asyncio.shield(task)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _empty(folder: Folder) -> None:
    try:
        folder.rebuild()
    except OSError as e:
        raise OutcomeUnknown(
            f"the VM was ended and its folder cannot be emptied: {e.filename}: {e.strerror}"
        ) from e


@contextmanager
def _doing(machine: Machine, what: VmState) -> Iterator[None]:
    machine.doing = what
    try:
        yield
    finally:
        machine.doing = None


def _told(reasons: Sequence[str]) -> str:
    """The first reasons; the others are counted."""
    more = len(reasons) - _REASONS
    return "; ".join([*reasons[:_REASONS], *([f"and {more} more VMs"] if more > 0 else [])])


def _no_such(vm_id: VmId) -> NotFound:
    return NotFound(f"there is no VM {vm_id}", vm_id=vm_id)
