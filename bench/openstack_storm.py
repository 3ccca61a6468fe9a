"""`storm`: servers made and destroyed by the hundred through a proxy that does harm.

Presets grow and shrink; the answers of the cloud are lost, late, cut off or errors although it did
as it was told, and its lists omit the newest servers. No intent may ever have two live servers,
none is lost, none stays behind, and foreign ones are not touched. The horizon after which a create
that is nowhere to be seen counts as not done is shortened, so that the run does not wait for it all
the time: neither are lists wrong for so long here, nor does nova need so long for a create.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from bench.openstack_stage import SUITE, Stage
from bench.openstack_suite import Shepherd
from bench.openstack_watch import Foreign, Watch, made, orphans, strays, without_reason
from bench.replicas_figures import spread
from tests.openstack.cloud import database
from tests.openstack.faults import Closed, Fault, Forgetful, Refusal, Truncated, Unanswered
from tests.openstack.proxy import Rule

_WAVE: Final = 900.0
_PORTS_SECONDS: Final = 120.0
_OPTIONS: Final = {"horizon": "40s", "http_timeout": "10s"}
_FOREIGN: Final = 6

_BUSY: Final = Refusal(status=429, headers={"Retry-After": "1"}, forwarded=False)
_SERVER: Final = "/servers/[^/]+"
# Service, method, path, what is done, and how likely.
HARM: Final[tuple[tuple[str, str, str, Fault, float], ...]] = (
    ("compute", "POST", "/servers", Refusal(status=503), 0.06),
    ("compute", "POST", "/servers", Closed(), 0.06),
    ("compute", "POST", "/servers", Unanswered(), 0.03),
    ("compute", "POST", "/servers", Truncated(), 0.03),
    ("compute", "POST", "/servers", Refusal(status=503, forwarded=False), 0.04),
    ("compute", "POST", "/servers", Closed(forwarded=False), 0.04),
    ("compute", "POST", "/servers", Fault(seconds=4), 0.05),
    ("compute", "DELETE", _SERVER, Refusal(status=503), 0.06),
    ("compute", "DELETE", _SERVER, Closed(), 0.06),
    ("compute", "DELETE", _SERVER, Unanswered(), 0.02),
    ("compute", "DELETE", _SERVER, Refusal(status=409, forwarded=False), 0.04),
    ("compute", "GET", _SERVER, Refusal(status=503), 0.03),
    ("compute", "GET", _SERVER, Closed(), 0.02),
    ("compute", "GET", "/servers/detail", Forgetful(servers=5), 0.3),
    ("compute", "GET", "/servers/detail", Refusal(status=503), 0.04),
    ("compute", "GET", "/servers/detail", Truncated(claims_whole=True), 0.02),
    ("compute", "GET", "/servers/detail", Fault(seconds=3), 0.05),
    ("compute", "*", ".*", _BUSY, 0.01),
)
# Of one cell: intents of the suite, and how many servers each had; Nova's records outlive servers.
_HISTORY: Final = """
SELECT request.value, COUNT(DISTINCT i.uuid)
FROM nova_{cell}.instances i
JOIN nova_{cell}.instance_metadata request ON request.instance_uuid = i.uuid
JOIN nova_{cell}.instance_metadata suite ON suite.instance_uuid = i.uuid
WHERE i.project_id = '{project}' AND request.`key` = 'vmshepherd_request'
AND suite.`key` = 'vmshepherd_suite' AND suite.value = '{suite}'
GROUP BY request.value
"""


@dataclass(slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    creates: int
    presets: int
    vms: int
    lost: bool = True
    """Whether creates may also be lost before they are done: each waits for the horizon then."""

    @property
    def waves(self) -> int:
        """How often all presets grow and shrink."""
        return -(-self.creates // (self.presets * self.vms))


@dataclass(slots=True)
class Waves:
    """How long each took."""

    up: list[float] = field(default_factory=list)
    down: list[float] = field(default_factory=list)


class Storm:
    """One run."""

    def __init__(self, stage: Stage, asked: Asked) -> None:
        self._stage = stage
        self._asked = asked
        # All that is surplus goes at once: what is tried here is not the budget.
        policy = {"max_deletions_per_cycle": asked.vms}
        self._suite = Shepherd(stage, options=_OPTIONS, policy=policy)
        self._names = [f"web-{number:02}" for number in range(asked.presets)]
        self._foreign = Foreign(stage)
        self._watch = Watch(stage, dict.fromkeys(self._names, asked.vms))
        self._waves = Waves()
        self.wrong: list[str] = []

    def run(self) -> dict[str, Any]:
        """All waves; the figures."""
        try:
            self._declare(0)
            self._suite.up()
            for service, method, path, fault, probability in HARM:
                if self._asked.lost or fault.forwarded or method != "POST":
                    self._stage.ledger.on(service, method, path, fault, probability=probability)
            with self._watch:
                for _ in range(self._asked.waves):
                    self._waves.up.append(self._wave(self._asked.vms))
                    self._add_foreign()
                    self._waves.down.append(self._wave(0))
            events = self._suite.events()
        finally:
            self._suite.close()
        told = [each for each in events if each.kind == "VM_TERMINATING"]
        self.wrong += self._watch.wrong
        self.wrong += self._foreign.touched()
        self.wrong += without_reason(self._stage.ledger.asked, told)
        self.wrong += strays(self._stage, self._foreign.made)
        self.wrong += orphans(self._stage, _PORTS_SECONDS)
        return self._figures()

    def _declare(self, count: int) -> None:
        for name in self._names:
            self._suite.want(name, count)

    def _wave(self, count: int) -> float:
        """Every preset to this count."""
        begun = time.monotonic()
        self._declare(count)
        try:
            self._suite.settle_approved(_WAVE)
        except AssertionError:
            self.wrong += self._suite.unsettled()
        return time.monotonic() - begun

    def _add_foreign(self) -> None:
        like = next((each for each in self._stage.servers() if each.preset in self._names), None)
        if like is not None and len(self._foreign.made) < _FOREIGN:
            self._foreign.make(like, len(self._foreign.made))

    def _figures(self) -> dict[str, Any]:
        ledger = self._stage.ledger
        history = servers_of_intents(self._stage)
        return {
            "creates_asked_for": self._asked.waves * self._asked.presets * self._asked.vms,
            "servers_ever": sum(history.values()),
            "intents": len(history),
            "intents_with_several_servers_ever": sum(1 for n in history.values() if n > 1),
            "most_live_servers_of_an_intent": self._watch.most_of_an_intent,
            "most_servers_above_the_count": self._watch.most_above,
            "create_calls": made(ledger.asked),
            "delete_calls": sum(1 for each in ledger.asked if each.is_end),
            "harm_done": _harm(ledger.rules),
            "foreign_servers": len(self._foreign.made),
            "horizon": _OPTIONS["horizon"],
            "wave_up_seconds": spread(self._waves.up),
            "wave_down_seconds": spread(self._waves.down),
            "looks": self._watch.looks,
            "load_of_the_machine": [round(each, 1) for each in os.getloadavg()],
        }


def servers_of_intents(stage: Stage) -> Counter[str]:
    """How many servers were ever made for each intent, those that are gone included."""
    found: Counter[str] = Counter()
    for cell in ("cell0", "cell1", "cell2"):
        asked = _HISTORY.format(cell=cell, project=stage.project.project_id, suite=SUITE)
        rows = database.sql(stage.cloud.place, asked)
        found.update({request: int(number) for request, number in rows})
    return found


def _harm(rules: Iterable[Rule]) -> dict[str, int]:
    """How often each kind of harm was done."""
    found: Counter[str] = Counter()
    for rule in rules:
        after = "" if rule.fault.forwarded else ", not forwarded"
        path = rule.path.pattern.replace(_SERVER, "/servers/ID")
        found[f"{rule.method} {path}: {_name(rule.fault)}{after}"] += len(rule.met)
    return dict(found)


def _name(fault: Fault) -> str:
    if isinstance(fault, Refusal):
        return str(fault.status)
    if type(fault) is Fault:
        return f"{fault.seconds:g} s later"
    return type(fault).__name__


def show(stage: Stage, **asked: Any) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what was wrong."""
    storm = Storm(stage, Asked(**asked))
    found = storm.run()
    return found, storm.wrong
