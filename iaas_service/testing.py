# ruff: noqa: S101, D102, PLR2004
"""What every cloud must do, as tests: subclass `CloudContract` and the contracts of its traits.

    class TestMine(IdempotentCreateContract, EventsContract):
        @pytest.fixture
        async def cloud(self):
            async with MyCloud(...) as cloud:  # of the suite SUITE_ID
                yield cloud

        async def end(self, cloud, vm): ...   # what a crash does
        async def stop(self, cloud, vm): ...  # what an operator does

The cloud has flavors `small` and `large`, images `debian` and `debian-13`, a zone `north`, a key
`ops`, and no VM of the suite.  `ConsoleContract` wants `say(cloud, vm, text)` besides.

Needs pytest and pytest-asyncio in its auto mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from vmshepherd_kit.clock import SystemChance, SystemClock
from vmshepherd_kit.errors import AlreadyExists, BadRequest, NotFound, Unsupported

from . import marker
from .domain import Change, Gone, Marker, Order, Spec, Vm, VmId, VmState
from .port import Cloud, Consoles, Trait

SUITE_ID: Final = "contract"
_PATIENCE: Final = timedelta(seconds=60)
_POLL: Final = timedelta(milliseconds=10)
# Some clouds keep a record of what ended, others give it up.
_ENDED: Final = frozenset({VmState.TERMINATED, VmState.ERROR})

THE_LEAST: Final = Spec(flavor="small", image="debian")
"""What every cloud wants to know of a VM."""

_clock = SystemClock()


def an_order(
    *, preset: str = "web", spec: Spec | None = None, suite_id: str = SUITE_ID, token: int = 1
) -> Order:
    """An order for a VM that nobody ordered before."""
    mark = Marker(
        suite_id=suite_id,
        preset=preset,
        request_id=SystemChance().uuid(),
        fencing_token=token,
        spec_hash="9f2c",
    )
    return Order(name=f"{preset}-1", spec=spec or THE_LEAST, marker=mark)


async def eventually(is_so: Callable[[], Awaitable[object]]) -> None:
    """Wait until it is so."""
    end = _clock.elapsed() + _PATIENCE
    while not await is_so():
        assert _clock.elapsed() < end, "it never became so"
        await _clock.sleep(_POLL)


async def state_of(cloud: Cloud, vm_id: VmId) -> VmState | None:
    """What it is doing now; None when it is gone."""
    [found] = await cloud.get([vm_id])
    if isinstance(found, NotFound):
        return None
    assert isinstance(found, Vm), found
    return found.state


async def a_running_vm(cloud: Cloud) -> Vm:
    """A new VM, as it is once it runs."""
    made = await cloud.create(an_order())
    await eventually_runs(cloud, made.vm_id)
    [vm] = await cloud.get([made.vm_id])
    assert isinstance(vm, Vm)
    return vm


async def eventually_runs(cloud: Cloud, vm_id: VmId) -> None:
    """Wait until it runs."""

    async def runs() -> bool:
        return await state_of(cloud, vm_id) is VmState.RUNNING

    await eventually(runs)


class CloudContract:
    """What every cloud must do."""

    @pytest.fixture
    async def cloud(self) -> Any:
        raise NotImplementedError("give the cloud to be tested")

    async def end(self, cloud: Any, vm: Vm) -> None:
        """End the VM as a crash would."""
        raise NotImplementedError

    async def stop(self, cloud: Any, vm: Vm) -> None:
        """Stop the VM as an operator would."""
        raise NotImplementedError

    async def test_its_traits_are_those_that_are_tested(self, cloud: Cloud) -> None:
        contracts = {
            Trait.IDEMPOTENT_CREATE: IdempotentCreateContract,
            Trait.EVENTS: EventsContract,
            Trait.REBOOT: RebootContract,
            Trait.REBUILD: RebuildContract,
            Trait.CONSOLE: ConsoleContract,
        }
        tested = {
            trait for trait, contract in contracts.items() if issubclass(type(self), contract)
        }
        assert cloud.traits == tested

    async def test_a_new_vm_is_listed_with_its_marker(self, cloud: Cloud) -> None:
        order = an_order(token=7)
        made = await cloud.create(order)
        listing = await cloud.list()
        assert listing.complete
        [vm] = listing.vms
        assert vm.vm_id == made.vm_id
        assert marker.read(vm.metadata, SUITE_ID) == order.marker

    async def test_a_new_vm_is_what_was_ordered(self, cloud: Cloud) -> None:
        spec = Spec(
            flavor="small",
            image="debian",
            availability_zone="north",
            key_name="ops",
            metadata={"team": "search"},
        )
        order = an_order(spec=spec)
        vm = await cloud.create(order)
        assert (vm.name, vm.flavor, vm.image) == (order.name, "small", "debian")
        assert (vm.zone, vm.key_name, vm.metadata["team"]) == ("north", "ops", "search")

    async def test_a_new_vm_runs_at_last_and_has_an_address(self, cloud: Cloud) -> None:
        vm = await a_running_vm(cloud)
        assert vm.addresses

    async def test_its_creation_time_never_changes(self, cloud: Cloud) -> None:
        vm = await cloud.create(an_order())
        [listed] = (await cloud.list()).vms
        [found] = await cloud.get([vm.vm_id])
        assert isinstance(found, Vm)
        assert vm.create_time == listed.create_time == found.create_time
        assert vm.create_time.tzinfo is not None

    async def test_orders_side_by_side_make_a_vm_each(self, cloud: Cloud) -> None:
        orders = [an_order() for _ in range(10)]
        made = await asyncio.gather(*(cloud.create(order) for order in orders))
        listed = (await cloud.list()).vms
        assert len({vm.vm_id for vm in made}) == 10
        assert {vm.vm_id for vm in listed} == {vm.vm_id for vm in made}

    async def test_an_unknown_vm_is_not_found_and_hides_no_other(self, cloud: Cloud) -> None:
        vm = await cloud.create(an_order())
        missing, found = await cloud.get([VmId("no-such-vm"), vm.vm_id])
        assert isinstance(missing, NotFound)
        assert isinstance(found, Vm)
        assert found.vm_id == vm.vm_id

    async def test_a_terminated_vm_goes_and_another_stays(self, cloud: Cloud) -> None:
        # Of one that is destroyed while it is made, some clouds have an afterimage.
        vm, other = await a_running_vm(cloud), await cloud.create(an_order())
        assert await cloud.terminate(vm) is True

        async def is_gone() -> bool:
            return await state_of(cloud, vm.vm_id) is None

        await eventually(is_gone)
        assert [left.vm_id for left in (await cloud.list()).vms] == [other.vm_id]

    async def test_terminating_what_is_gone_says_so(self, cloud: Cloud) -> None:
        vm = await a_running_vm(cloud)
        await cloud.terminate(vm)

        async def is_gone() -> bool:
            return await state_of(cloud, vm.vm_id) is None

        await eventually(is_gone)
        assert await cloud.terminate(vm) is False

    async def test_a_vm_that_ended_is_seen_as_ended(self, cloud: Cloud) -> None:
        vm = await cloud.create(an_order())
        await self.end(cloud, vm)

        async def has_ended() -> bool:
            return await state_of(cloud, vm.vm_id) in _ENDED

        await eventually(has_ended)
        assert await cloud.terminate(vm) is True

    async def test_a_vm_stopped_by_a_person_is_stopped_not_dead(self, cloud: Cloud) -> None:
        vm = await cloud.create(an_order())
        await self.stop(cloud, vm)

        async def has_stopped() -> bool:
            return await state_of(cloud, vm.vm_id) is VmState.STOPPED

        await eventually(has_stopped)
        assert await cloud.terminate(vm) is True

    async def test_options_that_mean_nothing_are_refused_by_name(self, cloud: Cloud) -> None:
        spec = replace(THE_LEAST, options={"region": "north", "no_such_option": 1})
        with pytest.raises(BadRequest) as refusal:
            await cloud.create(an_order(spec=spec))
        assert [v.field for v in refusal.value.violations] == ["spec.options.no_such_option"]
        assert (await cloud.list()).vms == []

    async def test_the_catalog_tells_how_many_vms_there_are(self, cloud: Cloud) -> None:
        await cloud.create(an_order())

        async def is_counted() -> bool:
            quotas = {quota.resource: quota for quota in (await cloud.catalog()).quotas}
            return quotas["vms"].used == 1

        await eventually(is_counted)

    async def test_what_it_cannot_do_it_refuses(self, cloud: Cloud) -> None:
        vm = await cloud.create(an_order())
        if Trait.REBOOT not in cloud.traits:
            with pytest.raises(Unsupported):
                await cloud.reboot(vm)
        if Trait.REBUILD not in cloud.traits:
            with pytest.raises(Unsupported):
                await cloud.rebuild(vm, Spec(image="debian"), spec_hash="")
        if Trait.CONSOLE not in cloud.traits and isinstance(cloud, Consoles):
            with pytest.raises(Unsupported):
                await cloud.console(vm, 1)
        if Trait.EVENTS not in cloud.traits:
            with pytest.raises(Unsupported):
                cloud.watch().__enter__()


class IdempotentCreateContract(CloudContract):
    """For clouds that know a repeated create."""

    async def test_a_repeated_create_makes_no_second_vm(self, cloud: Cloud) -> None:
        order = an_order()
        first, second = await cloud.create(order), await cloud.create(order)
        assert first.vm_id == second.vm_id
        assert len((await cloud.list()).vms) == 1

    async def test_creates_repeated_at_the_same_time_make_one_vm(self, cloud: Cloud) -> None:
        order = an_order()
        made = await asyncio.gather(*(cloud.create(order) for _ in range(5)))
        assert len({vm.vm_id for vm in made}) == 1
        assert len((await cloud.list()).vms) == 1

    async def test_a_newer_holder_may_repeat_a_create(self, cloud: Cloud) -> None:
        order = an_order(token=1)
        first = await cloud.create(order)
        newer = replace(order, marker=replace(order.marker, fencing_token=2))
        assert (await cloud.create(newer)).vm_id == first.vm_id

    async def test_the_same_request_for_another_vm_is_refused(self, cloud: Cloud) -> None:
        order = an_order()
        await cloud.create(order)
        with pytest.raises(AlreadyExists) as refusal:
            await cloud.create(replace(order, spec=replace(THE_LEAST, user_data="other")))
        assert refusal.value.reason == "REQUEST_ID_REUSED"
        assert len((await cloud.list()).vms) == 1

    async def test_a_create_repeated_after_the_end_makes_nothing(self, cloud: Cloud) -> None:
        order = an_order()
        vm = await cloud.create(order)
        await cloud.terminate(vm)

        async def is_gone() -> bool:
            return await state_of(cloud, vm.vm_id) is None

        await eventually(is_gone)
        again = await cloud.create(order)
        assert (again.vm_id, again.state) == (vm.vm_id, VmState.TERMINATED)
        assert (await cloud.list()).vms == []


class EventsContract(CloudContract):
    """For clouds that tell of changes."""

    async def test_a_creation_an_end_and_a_removal_are_told(self, cloud: Cloud) -> None:
        with cloud.watch() as changes:
            told: list[Change] = []

            async def until(is_it: Callable[[Change], bool]) -> None:
                async with asyncio.timeout(_PATIENCE.total_seconds()):
                    while not any(is_it(change) for change in told):
                        told.extend(await changes.next())

            vm = await cloud.create(an_order())
            await until(lambda change: change.vm.vm_id == vm.vm_id)
            await self.end(cloud, vm)
            await until(lambda change: change.vm.state in _ENDED)
            await cloud.terminate(vm)
            await until(lambda change: isinstance(change, Gone))

    async def test_a_watcher_who_gave_up_waiting_misses_nothing(self, cloud: Cloud) -> None:
        with cloud.watch() as changes:
            waiting = asyncio.ensure_future(changes.next())
            await _clock.sleep(timedelta(0))
            waiting.cancel()
            vm = await cloud.create(an_order())
            told: list[Change] = []
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                while not told:
                    told.extend(await changes.next())
        assert told[0].vm.vm_id == vm.vm_id


class RebootContract(CloudContract):
    """For clouds that restart VMs."""

    async def test_a_rebooted_vm_is_the_same_and_runs_again(self, cloud: Cloud) -> None:
        vm = await a_running_vm(cloud)
        await self.end(cloud, vm)
        rebooted = await cloud.reboot(vm)
        assert rebooted.vm_id == vm.vm_id
        assert (rebooted.addresses, rebooted.create_time) == (vm.addresses, vm.create_time)
        await eventually_runs(cloud, vm.vm_id)

    async def test_what_is_gone_cannot_be_rebooted(self, cloud: Cloud) -> None:
        vm = await a_running_vm(cloud)
        await cloud.terminate(vm)

        async def is_gone() -> bool:
            return await state_of(cloud, vm.vm_id) is None

        await eventually(is_gone)
        with pytest.raises(NotFound):
            await cloud.reboot(vm)


class RebuildContract(CloudContract):
    """For clouds that make VMs anew in their places."""

    async def test_a_rebuilt_vm_is_the_same_with_another_image(self, cloud: Cloud) -> None:
        vm = await a_running_vm(cloud)
        rebuilt = await cloud.rebuild(vm, Spec(image="debian-13"), spec_hash="")
        assert (rebuilt.vm_id, rebuilt.addresses) == (vm.vm_id, vm.addresses)
        assert (rebuilt.create_time, rebuilt.image) == (vm.create_time, "debian-13")
        await eventually_runs(cloud, vm.vm_id)

    async def test_a_rebuilt_vm_bears_the_hash_of_what_it_was_rebuilt_from(
        self, cloud: Cloud
    ) -> None:
        order = an_order(spec=replace(THE_LEAST, metadata={"team": "search"}))
        vm = await cloud.create(order)
        await eventually_runs(cloud, vm.vm_id)
        await cloud.rebuild(vm, Spec(flavor="large", metadata={"team": "x"}), spec_hash="77aa")
        [listed] = (await cloud.list()).vms
        mark = replace(order.marker, spec_hash="77aa")
        assert marker.read(listed.metadata, SUITE_ID) == mark
        assert (listed.flavor, listed.metadata["team"]) == ("small", "search")

    async def test_rebuilt_from_its_own_image_it_stays_what_it_was(self, cloud: Cloud) -> None:
        order = an_order()
        vm = await cloud.create(order)
        await eventually_runs(cloud, vm.vm_id)
        rebuilt = await cloud.rebuild(vm, Spec(), spec_hash="")
        assert rebuilt.image == "debian"
        assert marker.read(rebuilt.metadata, SUITE_ID) == order.marker

    async def test_an_ended_vm_that_is_rebuilt_runs_again(self, cloud: Cloud) -> None:
        vm = await cloud.create(an_order())
        await self.end(cloud, vm)
        await cloud.rebuild(vm, Spec(image="debian-13"), spec_hash="77aa")
        await eventually_runs(cloud, vm.vm_id)

    async def test_what_is_gone_cannot_be_rebuilt(self, cloud: Cloud) -> None:
        vm = await a_running_vm(cloud)
        await cloud.terminate(vm)

        async def is_gone() -> bool:
            return await state_of(cloud, vm.vm_id) is None

        await eventually(is_gone)
        with pytest.raises(NotFound):
            await cloud.rebuild(vm, Spec(image="debian-13"), spec_hash="")


class ConsoleContract(CloudContract):
    """For clouds that show what VMs say."""

    async def say(self, cloud: Any, vm: Vm, text: str) -> None:
        """Have the VM say something on its console."""
        raise NotImplementedError

    async def test_the_newest_lines_of_a_console_are_shown_last(self, cloud: Cloud) -> None:
        assert isinstance(cloud, Consoles)
        vm, other = await cloud.create(an_order()), await cloud.create(an_order())
        await self.say(cloud, vm, "kernel panic\nnot syncing\n")
        shown = await cloud.console(vm, 2)
        assert shown.rstrip().endswith("kernel panic\nnot syncing")
        assert "panic" not in await cloud.console(other, 200)

    async def test_the_console_of_an_ended_vm_is_still_there(self, cloud: Cloud) -> None:
        assert isinstance(cloud, Consoles)
        vm = await cloud.create(an_order())
        await self.say(cloud, vm, "kernel panic\n")
        await self.end(cloud, vm)
        assert "kernel panic" in await cloud.console(vm, 1)

    async def test_what_is_gone_has_no_console(self, cloud: Cloud) -> None:
        assert isinstance(cloud, Consoles)
        vm = await a_running_vm(cloud)
        await cloud.terminate(vm)

        async def is_gone() -> bool:
            return await state_of(cloud, vm.vm_id) is None

        await eventually(is_gone)
        with pytest.raises(NotFound):
            await cloud.console(vm, 1)
