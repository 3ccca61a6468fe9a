"""One run of bench/replicas.py: VMs are made, processes are hurt, and what came of it is judged."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.replicas_chaos import Chaos
from bench.replicas_errands import LIMIT_SECONDS, Errands
from bench.replicas_figures import against, late_sentences, of_takeovers, of_wishes, spread
from bench.replicas_fleet import Fleet
from bench.replicas_judge import of_journal, settled
from bench.replicas_readers import Readers
from bench.replicas_takeover import Takeovers
from bench.replicas_watch import Cloud, Store, token_regressions
from bench.replicas_wishes import Wishes
from orchestrator.config import Session
from vmshepherd_kit.entry import GRACE

SHARED: Final = ("postgres", "zookeeper")
_MAKING_SECONDS: Final = 300.0
_READ_EVERY: Final = 0.2
_WISH_EVERY: Final = 1.0
_CONVERGE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    driver: str
    orchestrators: int
    presets: int
    vms: int
    minutes: float
    every: float
    seed: str
    ttl: float | None

    @property
    def session(self) -> dict[str, str]:
        """Settings of sessions: a shorter life in the proportions of the default one."""
        if self.ttl is None:
            return {}
        share = self.ttl / Session().ttl.total_seconds()
        keys = ("ttl", "refresh", "rpc_timeout", "margin", "lock_delay")
        return {
            key: f"{getattr(Session(), key).total_seconds() * share * 1000:.0f}ms" for key in keys
        }

    @property
    def ttl_and_delay(self) -> float:
        """Until a dead replica's locks are free, in seconds."""
        timing = Session()
        whole = (timing.ttl + timing.lock_delay).total_seconds()
        return whole if self.ttl is None else whole * self.ttl / timing.ttl.total_seconds()


class Run:
    """One run over one store."""

    def __init__(self, asked: Asked, fleet: Fleet) -> None:
        self._asked = asked
        self._fleet = fleet
        self._counts = {f"preset-{number:04}": asked.vms for number in range(asked.presets)}
        chance = random.Random(asked.seed)  # noqa: S311  bad luck is to be repeated, not secret
        self._takeovers = Takeovers(self._counts, ttl_and_delay=asked.ttl_and_delay)
        self._store = Store(fleet, self._takeovers)
        self._cloud = Cloud(fleet, self._counts)
        self._readers = Readers(fleet, self._counts, chance=chance)
        self._errands = Errands(fleet, self._store, self._takeovers, chance=chance)
        self._wishes = Wishes(
            self._errands,
            self._cloud,
            counts=self._counts,
            folder=fleet.folder / "presets",
            chance=chance,
        )
        services = ["orchestrator", "runtime"] if asked.driver in SHARED else ["orchestrator"]
        self._chaos = Chaos(fleet, services, chance=chance, longest_stop=1.5 * asked.ttl_and_delay)
        self._stuck: list[str] = []
        self._made_seconds = self._settled_seconds = 0.0

    async def whole(self) -> dict[str, Any]:
        """Make the VMs, break, wait, judge; the figures."""
        try:
            await self._made()
            await self._broken()
            begun = time.monotonic()
            self._stuck = await self._until_settled(_CONVERGE_SECONDS)
            self._settled_seconds = time.monotonic() - begun
            wrong = [*self._wrong(), *await self._of_records()]
            return self._figures(wrong)
        finally:
            await self._fleet.close()

    async def _made(self) -> None:
        """Phase one: every VM is there, and nothing was hurt yet."""
        begun = time.monotonic()
        for name, count in list(self._counts.items()):
            self._wishes.declare(name, count)
        for wave in (("preset", "iaas", "health", "runtime"), ("orchestrator",)):
            names = [each.name for service in wave for each in self._fleet.of(service)]
            self._fleet.start(*names)
            await self._fleet.until_serving(*names)
        stuck = await self._until_settled(_MAKING_SECONDS)
        if stuck:
            raise RuntimeError(f"the VMs were not made: {stuck}")
        self._made_seconds = time.monotonic() - begun
        self._cloud.judge(await self._cloud.listed())

    async def _broken(self) -> None:
        """Phase two: faults, and people who go on as if there were none."""
        watching = [self._store.watch(), self._cloud.watch(), self._readers.read(_READ_EVERY)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in watching]
            wishes = group.create_task(self._wishes.work(_WISH_EVERY))
            await self._chaos.reign(every=self._asked.every, seconds=self._asked.minutes * 60)
            await self._chaos.cease()
            await self._until_attended()
            self._wishes.end()
            await wishes
            for task in tasks:
                task.cancel()

    async def _until_attended(self) -> None:
        while self._takeovers.gaps:
            late = self._takeovers.still_late(time.monotonic() - 10 * LIMIT_SECONDS)
            if late:
                self._takeovers.wrong.extend(late)
                return
            await asyncio.sleep(0.1)

    async def _until_settled(self, seconds: float) -> list[str]:
        return await settled(
            self._fleet, self._store, self._cloud, counts=self._counts, seconds=seconds
        )

    async def _of_records(self) -> list[str]:
        vms = await self._cloud.listed()
        self._cloud.judge(vms)
        events = [event for page in await self._store.events() for event in page.events]
        return token_regressions(vms) + of_journal(events, wanted=self._cloud.wanted)

    def _wrong(self) -> list[str]:
        return [
            *self._stuck,
            *late_sentences(self._takeovers.over, self._errands.reached),
            *self._takeovers.wrong,
            *self._cloud.wrong,
            *self._readers.wrong,
            *self._errands.wrong,
            *self._chaos.wrong,
        ]

    def _figures(self, wrong: Sequence[str]) -> dict[str, Any]:
        asked, reached = self._asked, self._errands.reached
        return {
            "driver": asked.driver,
            "seed": asked.seed,
            "orchestrators": asked.orchestrators,
            "presets": asked.presets,
            "vms_at_the_end": sum(self._counts.values()),
            "minutes": asked.minutes,
            "ttl_and_lock_delay_seconds": asked.ttl_and_delay,
            "made_seconds": round(self._made_seconds, 1),
            "settled_seconds": round(self._settled_seconds, 1),
            "faults": dict(self._chaos.done),
            "takeovers": of_takeovers(self._takeovers.over),
            "sigterm_to_end": against(self._chaos.endings, GRACE.total_seconds()),
            "wishes": of_wishes(reached, is_store_whole=True),
            "wishes_without_a_runtime_service": of_wishes(reached, is_store_whole=False),
            "wishes_disturbed_by_faults": sum(self._wishes.disturbed.values()),
            "wishes_asked_again": self._errands.asked_again,
            "reads": self._readers.asked,
            "reads_whose_replica_was_hurt": self._readers.unanswered_by_the_dead,
            "read_seconds": spread(self._readers.seconds),
            "most_vms_above_count": self._cloud.most,
            "longest_look_of_the_bench_seconds": round(self._store.longest_look, 2),
            "wrong": len(wrong),
            "what_was_wrong": list(wrong),
        }
