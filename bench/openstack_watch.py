"""What the judges of bench/openstack.py hold a run to, past the suite: servers, intents, destroys.

`Watch` looks at the project all the time, in a thread of its own; the functions judge what is left
at the end.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from bench.openstack_stage import AWAY, SUITE, Asked, Seen, Stage
from bench.openstack_suite import repeated
from vmshepherd.runtime.v1.event_pb2 import Event

SURGE: Final = 1
_EVERY: Final = 2.0
_COUNTED: Final = {"ACTIVE", "BUILD", "SHUTOFF"}
# What a server takes on a machine that others use as well.
_MAKING: Final = 240.0


class Watch:
    """More servers than may be, at any time; running within its block."""

    def __init__(self, stage: Stage, most: Mapping[str, int]) -> None:
        """`most` is the highest count of each preset."""
        self._stage = stage
        self._most = most
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.looks = 0
        self.most_above = 0
        self.most_of_an_intent = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def judge(self, servers: Sequence[Seen]) -> None:
        """Compare with what may be."""
        self.looks += 1
        several = repeated(servers)
        live = max((len(ids) for ids in several.values()), default=1 if servers else 0)
        self.most_of_an_intent = max(self.most_of_an_intent, live)
        self.wrong += [f"intent {request} has {ids}" for request, ids in several.items()]
        counted = Counter(s.preset for s in servers if s.status in _COUNTED and not s.is_going)
        for preset, most in self._most.items():
            number = counted[preset]
            above = number - most
            self.most_above = max(self.most_above, above)
            if above > SURGE:
                self.wrong.append(f"{preset}: {number} servers, {above} more than declared")

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            try:
                self.judge(self._stage.servers())
            except AWAY:
                continue


class Foreign:
    """Servers of somebody else in the project, named and marked as if they were ours."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.made: dict[str, str] = {}

    def make(self, like: Seen, number: int) -> None:
        """One that resembles a server of the suite."""
        preset = like.preset
        names = (
            like.name,
            preset,
            f"{preset}-0",
            f"x{preset}",
            f"{preset}.*",
            f"{preset}-{number}",
        )
        marks: tuple[dict[str, str], ...] = (
            {},
            {**like.metadata, "vmshepherd_suite": f"{SUITE}-2"},
            {"vmshepherd_suite": SUITE, "vmshepherd_preset": preset},
        )
        name = names[number % len(names)]
        made = self._stage.project.order(name, metadata=marks[number % len(marks)])
        self.made[made] = name

    def touched(self) -> list[str]:
        """Those that are not as they were left, and what the suite did to any of them."""
        there = self._there()
        wrong = [
            f"foreign server {name} is {there[vm].status if vm in there else 'gone'}"
            for vm, name in self.made.items()
            if vm not in there or there[vm].status != "ACTIVE"
        ]
        return wrong + [
            f"the suite did {each.kind} to the foreign server {self.made[each.server_id]}"
            for each in self._stage.ledger.asked
            if each.server_id in self.made and each.method != "GET"
        ]

    def _there(self) -> dict[str, Seen]:
        """All servers of the project, once Nova has made those that were ordered here."""
        end = time.monotonic() + _MAKING
        while True:
            there = {each.server_id: each for each in self._stage.servers()}
            is_whole = all(there[vm].status != "BUILD" for vm in self.made.keys() & there.keys())
            if is_whole or time.monotonic() > end:
                return there
            time.sleep(1)


def without_reason(asked: Iterable[Asked], events: Iterable[Event]) -> list[str]:
    """Servers that were destroyed without a reason and evidence written down before."""
    written: dict[str, float] = {}
    for event in events:
        if event.reason and event.evidence.get("evidence"):
            written.setdefault(event.vm_id, event.time.ToNanoseconds() / 1e9)
    return [
        f"{each.server_id} was destroyed, and no reason was written down before"
        for each in asked
        if each.is_end and written.get(each.server_id, float("inf")) > each.time
    ]


def orphans(stage: Stage, seconds: float) -> list[str]:
    """Ports that stay without a server: neutron is given a while."""
    end = time.monotonic() + seconds
    while (found := stage.orphans()) and time.monotonic() < end:
        time.sleep(1)
    return found


def strays(stage: Stage, known: Mapping[str, Any]) -> list[str]:
    """Servers by the database that neither the suite nor the bench knows of."""
    ours = {each.server_id for each in stage.servers() if each.preset}
    there = stage.cloud.servers(stage.project)
    return [
        f"server {vm} is nobody's, and {there[vm]}" for vm in there.keys() - ours - known.keys()
    ]


def made(asked: Iterable[Asked]) -> int:
    """How many servers were ordered."""
    return sum(1 for each in asked if each.is_create)
