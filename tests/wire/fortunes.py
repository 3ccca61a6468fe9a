"""What may befall the presets of a suite, by chance: edits, commands, people, bad luck.

`test_plan_equals_act` lets a little of it happen between two cycles. The wall clock stands unless
it is moved, so that a plan and the cycle after it see the same.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from iaas_service.domain import VmId, VmState
from iaas_service.drivers.simulated.world import Record
from tests.support.suite import QUICK, Place, Replica, until
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.errors import NoCapacity, ShepherdError, Unavailable

Fortune = Callable[[str], Awaitable[object] | None]

BEGINNING = datetime.fromisoformat("2030-01-01T00:00:00+00:00")
_POLICIES: dict[str, list[Any]] = {
    "max_surge": [1, 1, 2, 3],
    "max_unavailable": [1, 1, 2],
    "startup_grace": ["0s", "30s"],
    "boot_timeout": ["1m", "10m"],
    "max_deletions_per_cycle": [1, 2, 5],
    "max_deletions_per_window": [2, 10],
    "max_lifetime": ["20m", "36500d"],
    "breaker_count": [2, 9, 9],
    "suspend_after": [1, 3, 0],
    "reboots": [0, 1],
    "rebuilds": [0, 1],
    "keep_failed": [0, 1, 2],
    "keep_failed_time": ["5m", "1h"],
    "replace": ["rolling", "rolling", "on_failure", "never"],
    "canary": [0, 1, 2],
    "min_healthy_time": ["0s", "30s"],
    "batch_pause": ["0s", "0s", "1m"],
    "removal_grace": ["0s", "5m"],
    "scale_in_order": ["newest", "oldest"],
    "on_stopped": ["park", "replace"],
    "on_remove": ["keep", "delete", "delete"],
}
_PAUSES = [0, 1, 10, 40, 40, 40, 90, 90, 400, 4000]
# How often the weather clears up, and how often one thing more happens to a preset.
_FAIR, _BUSY = 0.6, 0.5
_FLAVORS = ["small", "small", "[small, large]", "[large, small]"]
_ZONES = ["a", "[a, b]", "[a, b, c]"]


@dataclass
class StandingClock(SystemClock):
    """The date stands until a test moves it; whoever waits, waits for as long as ever."""

    now: datetime = BEGINNING

    def wall(self) -> datetime:
        """See the kit."""
        return self.now


@dataclass
class Fortunes:
    """Random lives of some presets, all from one seed."""

    here: Place
    replica: Replica
    clock: StandingClock
    chance: random.Random
    names: list[str]
    story: list[str] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    rounds: int = 0
    edition: int = 0

    async def begin(self) -> None:
        """Declare every preset."""
        for name in self.names:
            self.files[name] = self._first()
        await self.published()

    async def go_on(self) -> None:
        """A little time, and for each preset now and then something that happens to it."""
        self.rounds += 1
        passed = self.chance.choice(_PAUSES)
        self.clock.now += timedelta(seconds=passed)
        self.story.append(f"-- round {self.rounds}, {passed} s later")
        if self.chance.random() < _FAIR:
            self._clear_up()
        for name in self.names:
            while self.chance.random() < _BUSY:
                await self._befall(name)
        await self.published()

    async def published(self) -> None:
        """Write the files as they are to be, and wait until all of them are known."""
        self.edition += 1
        links = {"edition": self._link()}
        for name, keys in self.files.items():
            self.here.declare(name, **keys, panel_links=links)
        for name in set(self.names) - set(self.files):
            (self.here.folder / "presets" / f"{name}.yaml").unlink(missing_ok=True)
        await self.is_known_to(self.replica)

    async def is_known_to(self, replica: Replica) -> None:
        """Wait until a replica knows all files."""
        presets = replica.parts.cycles.presets

        async def is_known() -> bool:
            return all(self._is_as_written(name, presets.get(name)) for name in self.names)

        await until(is_known, lambda: f"edition {self.edition} is not known")

    def _is_as_written(self, name: str, declared: Any) -> bool:
        if name not in self.files or declared is None:
            return name not in self.files and declared is None
        links = declared.message.spec.panel_links
        return bool(links["edition"] == self._link())

    def _link(self) -> str:
        """What tells one edition of all files from another, and matters to nobody."""
        return f"http://x/{self.edition}"

    async def _befall(self, name: str) -> None:
        which = self.chance.choice(self._all())
        self.story.append(f"{name}: {which.__name__.strip('_')}")
        try:
            if (done := which(name)) is not None:
                await done
        except ShepherdError as e:
            # People hear no, too.
            self.story.append(f"  refused: {e.message}")

    def _all(self) -> list[Fortune]:
        edits: list[Fortune] = [self._scale, *[self._revise] * 4, self._word, self._word]
        removals: list[Fortune] = [self._remove, *[self._restore] * 3]
        people: list[Fortune] = [
            self._pause,
            *[self._resume] * 5,
            self._terminate,
            self._protect,
            self._unprotect,
            self._approve,
            self._approve,
        ]
        luck: list[Fortune] = [self._at_the_cloud, *[self._sicken] * 3, self._heal]
        weather: list[Fortune] = [self._shorten, self._blind, self._lose_cell]
        return [*edits, *removals, *people, *luck, *luck, *weather]

    # Edits

    def _first(self) -> dict[str, Any]:
        check = self.chance.choice([{}, {"healthcheck": QUICK}, {"healthcheck": QUICK}])
        return {
            "count": self.chance.randint(1, 5),
            "flavor": self.chance.choice(_FLAVORS),
            "network": {"availability_zone": self.chance.choice(_ZONES)},
            "userdata": "first",
            "policy": {
                key: self.chance.choice(values)
                for key, values in _POLICIES.items()
                if self.chance.random() < 0.7
            },
            **check,
        }

    def _scale(self, name: str) -> None:
        if name in self.files:
            self.files[name]["count"] = self.chance.choice([0, 1, 2, 3, 4, 5, 12])

    def _revise(self, name: str) -> None:
        if name in self.files:
            self.files[name]["userdata"] = self.chance.choice(["first", "second", "third"])

    def _word(self, name: str) -> None:
        if name in self.files:
            key = self.chance.choice(list(_POLICIES))
            policy = {**self.files[name]["policy"], key: self.chance.choice(_POLICIES[key])}
            self.files[name]["policy"] = policy

    def _remove(self, name: str) -> None:
        self.files.pop(name, None)

    def _restore(self, name: str) -> None:
        if name not in self.files:
            self.files[name] = self._first()

    # People

    async def _pause(self, name: str) -> None:
        processes = self.chance.choice([[], [self.chance.choice(view.Process.values()[1:])]])
        asked: dict[str, Any] = {
            "preset": name,
            "processes": processes,
            "actor": "ann",
            "reason": "a look",
        }
        await self.replica.ask("PausePreset", **asked)

    async def _resume(self, name: str) -> None:
        await self.replica.ask("ResumePreset", preset=name, actor="ann")

    async def _terminate(self, name: str) -> None:
        for vm_id in self._one(name):
            force = self.chance.random() < 0.3
            asked: dict[str, Any] = {"preset": name, "vm_id": vm_id, "actor": "ann", "force": force}
            await self.replica.ask("TerminateVm", **asked)

    async def _protect(self, name: str, *, protected: bool = True) -> None:
        for vm_id in self._one(name):
            asked: dict[str, Any] = {
                "preset": name,
                "vm_id": vm_id,
                "actor": "ann",
                "protected": protected,
            }
            await self.replica.ask("ProtectVm", **asked)

    async def _unprotect(self, name: str) -> None:
        await self._protect(name, protected=False)

    async def _approve(self, name: str) -> None:
        asked: dict[str, Any] = {"presets": [name], "approve_count": True, "actor": "ann"}
        await self.replica.ask("ReconcilePreset", **asked)

    # The cloud

    def _at_the_cloud(self, name: str) -> None:
        for vm_id in self._one(name):
            self.chance.choice(self._of_people_and_fate(vm_id))()

    def _of_people_and_fate(self, vm_id: VmId) -> list[Callable[[], object]]:
        world = self.here.world
        soon = (self.clock.now + timedelta(minutes=self.chance.randint(1, 20))).isoformat()
        return [
            lambda: world.kill(vm_id),
            lambda: world.kill(vm_id),
            lambda: world.error(vm_id),
            lambda: world.stop(vm_id),
            lambda: world.start(vm_id),
            lambda: world.vanish(vm_id),
            lambda: world.relabel(vm_id, vmshepherd_protected="true"),
            lambda: world.relabel(vm_id, vmshepherd_protected=""),
            lambda: world.relabel(vm_id, iaas_timed_shutdown=soon),
            lambda: world.undeletable(vm_id),
            lambda: self.here.grow_old(vm_id),
            lambda: self._resize(world.records[vm_id]),
        ]

    def _resize(self, record: Record) -> None:
        self.here.world.change(record, replace(record.vm, flavor="huge"))

    def _sicken(self, name: str) -> None:
        for vm_id in self._one(name):
            vm = self.here.world.records[vm_id].vm
            self.here.prober.sick |= {str(each.ip) for each in vm.addresses}

    def _clear_up(self) -> None:
        self.here.prober.is_blind = False
        self.here.world.cell_down(down=False)
        self.here.world.restock()
        self.here.world.create_failures.clear()

    def _heal(self, _: str) -> None:
        self.here.prober.sick.clear()

    def _blind(self, _: str) -> None:
        self.here.prober.is_blind = self.chance.random() < 0.5

    def _shorten(self, _: str) -> None:
        world = self.here.world
        happenings: list[Callable[[], object]] = [
            lambda: world.no_capacity("small", self.chance.choice("abc")),
            lambda: world.quota_exceeded("small"),
            lambda: world.next_create_fails(Unavailable("not now")),
            lambda: world.next_create_fails(NoCapacity("full")),
            world.accepted_but_503,
        ]
        self.chance.choice(happenings)()

    def _lose_cell(self, _: str) -> None:
        down = self.chance.random() < 0.3
        self.here.world.cell_down(down=down, silently=self.chance.random() < 0.5)

    def _one(self, name: str) -> list[VmId]:
        """One VM of the preset that is there, if any."""
        ours = [
            vm_id
            for vm_id, record in self.here.world.records.items()
            if record.order.marker.preset == name and record.vm.state is not VmState.DELETING
        ]
        return self.chance.sample(ours, min(1, len(ours)))
