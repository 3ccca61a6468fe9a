"""`endure`: twenty presets, three orchestrators, and bad luck on both sides for half an hour.

All services are processes of their own over one runtime_service. Every few seconds one blow falls:
see openstack_luck.py. RabbitMQ is away for a minute at two thirds of the time, and at one third
when there is time for it. At the end: exactly the declared servers, no server and no port of
nobody, no foreign server touched, what people stopped left alone, every destroy with its reason
written down before.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.openstack_luck import Luck
from bench.openstack_stage import Stage
from bench.openstack_suite import Shepherd
from bench.openstack_watch import Foreign, Watch, made, orphans, strays, without_reason
from tests.e2e.several import REPLICAS
from vmshepherd.runtime.v1.event_pb2 import Event

_MAKING: Final = 900.0
_SETTLING: Final = 600.0
_PORTS_SECONDS: Final = 120.0
# From so many minutes on the bus goes away twice.
_LONG_MINUTES: Final = 10.0
# A server that never came to life is replaced while the run lasts.
_POLICY: Final = {"boot_timeout": "2m"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    presets: int
    vms: int
    minutes: float
    every: float
    rabbit_seconds: float
    seed: str


class Endurance:
    """One run."""

    def __init__(self, stage: Stage, asked: Asked) -> None:
        self._stage = stage
        self._asked = asked
        self._suite = Shepherd(stage, policy=_POLICY)
        self._foreign = Foreign(stage)
        chance = random.Random(asked.seed)  # noqa: S311  bad luck is to be repeated, not secret
        self._luck = Luck(stage, self._suite, self._foreign, chance)
        self._counts = {f"web-{number:02}": asked.vms for number in range(asked.presets)}
        self._watch = Watch(stage, self._counts)
        self._made_seconds = self._settled_seconds = 0.0
        self.wrong: list[str] = []

    def run(self) -> dict[str, Any]:
        """Make the servers, hurt, wait, judge; the figures."""
        try:
            for name, count in self._counts.items():
                self._suite.want(name, count)
            self._suite.begin(*REPLICAS)
            self._made_seconds = self._suite.settle(_MAKING)
            with self._watch:
                self._hurt()
                self._luck.unpark_all()
                self._settled_seconds = self._settled()
            events = self._suite.events()
        finally:
            self._suite.close()
        self._judge(events)
        return self._figures(events)

    def _hurt(self) -> None:
        begun, seconds = time.monotonic(), self._asked.minutes * 60
        shares = (1 / 3, 2 / 3) if self._asked.minutes >= _LONG_MINUTES else (2 / 3,)
        outages = [begun + seconds * share for share in shares if self._asked.rabbit_seconds]
        while (now := time.monotonic()) < begun + seconds:
            if outages and now >= outages[0]:
                outages.pop(0)
                self._luck.without_rabbit(self._asked.rabbit_seconds)
            self._luck.strike()
            time.sleep(self._asked.every)

    def _settled(self) -> float:
        try:
            return self._suite.settle(_SETTLING)
        except AssertionError as e:
            self.wrong.append(f"not as declared after {_SETTLING:.0f} s: {e}")
            return _SETTLING

    def _judge(self, events: Sequence[Event]) -> None:
        told = [each for each in events if each.kind in {"VM_TERMINATING", "VM_REBUILDING"}]
        self.wrong += self._luck.wrong
        self.wrong += self._watch.wrong
        self.wrong += self._foreign.touched()
        self.wrong += without_reason(self._stage.ledger.asked, told)
        self.wrong += strays(self._stage, self._foreign.made)
        self.wrong += orphans(self._stage, _PORTS_SECONDS)

    def _figures(self, events: Sequence[Event]) -> dict[str, Any]:
        asked, ledger = self._asked, self._stage.ledger.asked
        reasons = Counter(each.reason for each in events if each.kind == "VM_TERMINATING")
        return {
            "presets": asked.presets,
            "servers": asked.presets * asked.vms,
            "minutes": asked.minutes,
            "seed": asked.seed,
            "made_seconds": round(self._made_seconds, 1),
            "blows": dict(self._luck.done),
            "blows_that_the_cloud_refused": dict(self._luck.refused),
            "servers_deleted_behind_the_back": len(self._luck.deleted),
            "foreign_servers": len(self._foreign.made),
            "servers_ordered": made(ledger),
            "calls_that_destroy": sum(1 for each in ledger if each.is_end),
            "reasons_to_destroy": dict(reasons),
            "most_servers_above_the_count": self._watch.most_above,
            "most_servers_of_an_intent": self._watch.most_of_an_intent,
            "looks": self._watch.looks,
            "settled_seconds": round(self._settled_seconds, 1),
            "load_of_the_machine": [round(each, 1) for each in os.getloadavg()],
        }


def show(stage: Stage, **asked: Any) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what was wrong."""
    endurance = Endurance(stage, Asked(**asked))
    found = endurance.run()
    return found, endurance.wrong
