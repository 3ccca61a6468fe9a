"""Each protective mechanism, switched off from outside: what the simulator must then find.

Nothing of the real code knows of this. A mechanism that can be switched off unnoticed protects
nothing, or the world lacks what makes it necessary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import orchestrator.act
import orchestrator.observe
from iaas_service import budgets, gates, tokens
from orchestrator import breaker, cycle, guard, health, intents, remove, replicas
from orchestrator.board import Tally
from orchestrator.fitness import Fitness
from orchestrator.model import Observation
from orchestrator.schedule import Schedule
from runtime_service import rules

from .cloud import SimCloud
from .simulate import Course
from .suite import Shape

Patch = tuple[object, str, Any]


@dataclass(frozen=True)
class Ablation:
    """One mechanism, what takes its place, and from which seed on it is caught soon."""

    name: str
    patches: Callable[[], list[Patch]]
    faults: tuple[str, ...]
    """What makes the mechanism necessary; the faults of everyday stand beside them."""
    keyed: bool | None = None
    """The model of the cloud in which it is necessary; None: either."""
    per_hour: float = 240
    seed: int = 1

    def shape(self, seed: int) -> Shape:
        """The world of a seed, in the model that matters."""
        shape = Shape.of(seed)
        return shape if self.keyed is None else replace(shape, keyed=self.keyed)

    @property
    def course(self) -> Course:
        """A quarter of an hour of the faults that matter."""
        everyday = ("a VM dies", "kill a replica")
        return Course(hours=0.25, per_hour=self.per_hour, only=(*everyday, *self.faults))


@contextmanager
def switched_off(ablation: Ablation) -> Iterator[None]:
    """The suite without this mechanism."""
    with ExitStack() as stack:
        for target, name, instead in ablation.patches():
            stack.enter_context(mock.patch.object(target, name, instead))
        yield


def _nothing(*_: Any, **__: Any) -> None:
    """In place of a gate."""


def _no_fencing() -> list[Patch]:
    return [
        (tokens.TokenFloors, "require", _nothing),
        (tokens.TokenFloors, "admit_all", _nothing),
    ]


def _no_locks() -> list[Patch]:
    """Whoever asks gets the lock, as in VmShepherd 1.6."""

    def holder_at(*_: Any) -> None:
        return None

    return [(rules.LockRecord, "holder_at", holder_at)]


def _no_intents() -> list[Patch]:
    return [(intents, "still_open", lambda seen: ())]


def _no_horizon() -> list[Patch]:
    return [(intents, "_may_be_sent", lambda intent, seen: True)]


def _no_idempotency_key() -> list[Patch]:
    real = SimCloud.create

    async def create(self: SimCloud, order: Any) -> Any:
        self._truth._requests.clear()
        return await real(self, order)

    return [(SimCloud, "create", create)]


def _no_resolving_by_id() -> list[Patch]:
    """What was confirmed counts until it is listed, gone or not."""

    def still_open(seen: Observation) -> tuple[Any, ...]:
        arrived = {vm.request_id for vm in seen.vms}
        return tuple(i for i in seen.memory.intents if i.request_id not in arrived)

    return [(intents, "still_open", still_open)]


def _no_breaker() -> list[Patch]:
    return [
        (breaker, "why_open", lambda *_, **__: ""),
        (gates.Gates, "_pass_breaker", _nothing),
    ]


def _no_ownership() -> list[Patch]:
    return [(gates.Gates, "pass_identity", _nothing)]


def _no_grace() -> list[Patch]:
    return [(health, "in_grace", lambda *_: False)]


def _trusting_lists() -> list[Patch]:
    """Every listing is taken for whole, and what it lacks for gone."""

    async def without_gaps(listing: Any, *_: Any) -> Any:
        return replace(listing, complete=True)

    return [(orchestrator.observe, "_without_gaps", without_gaps)]


def _no_budget() -> list[Patch]:
    return [
        (remove, "within_budget", lambda steps, _: (steps, ())),
        (budgets.Budget, "refusal", _nothing),
    ]


def _no_evidence_first() -> list[Patch]:
    """Ends are told afterwards, if at all."""

    async def announce(order: Any, *_: Any) -> Any:
        return order.plan.memory

    return [(orchestrator.act, "_announce", announce)]


def _no_replacement_first() -> list[Patch]:
    return [(remove, "_replaced", lambda group, over: (len(group.leaving), ()))]


def _no_spec_guard() -> list[Patch]:
    return [(guard, "accept_count", lambda spec, *_, **__: (spec.count, ()))]


def _no_homes() -> list[Patch]:
    """Whoever gets a preset keeps it, and nobody asks whose it is."""
    return [(cycle.Cycles, "_is_ours", lambda *_: True)]


def _no_patience_with_cycles() -> list[Patch]:
    """What has another home is handed over at once, whatever its cycle is about to do."""
    see, leaving = replicas.Replicas._see, list[asyncio.Future[Any]]()

    def seen(self: Any, sessions: Any, schedule: Schedule) -> None:
        see(self, sessions, schedule)
        cycles: Any = schedule._run.__self__  # type: ignore[attr-defined]
        for name in sorted(cycles.authority.tokens()):
            if self.home(name) != cycles.authority.owner:
                leaving.append(asyncio.ensure_future(cycles._leave(name)))

    return [(replicas.Replicas, "_see", seen)]


def _no_counts_of_others() -> list[Patch]:
    return [(replicas.Replicas, "others", Tally())]


def _no_fitness() -> list[Patch]:
    return [(Fitness, "is_fit", lambda _: True)]


_DOUBTS = ("answers of the cloud are lost", "the cloud acts late", "deliver late")
_BLIND = ("many services hang", "something refuses all probes")
_LOUD = ("something refuses all probes",)
_MOVES = ("a replica leaves and joins again",)
_HASTE = (*_MOVES, "many VMs die", "edit a count", "deliver late")
_CELLS = ("a cell is down", "listings forget a cell")

ABLATIONS = (
    Ablation("fencing", _no_fencing, ("deliver late",), per_hour=900, seed=2),
    Ablation("locks", _no_locks, ("cut a link",)),
    Ablation("intents", _no_intents, _DOUBTS),
    Ablation("unknown-outcome horizon", _no_horizon, _DOUBTS, keyed=False),
    Ablation("idempotency key", _no_idempotency_key, _DOUBTS, keyed=True),
    Ablation("resolving by id", _no_resolving_by_id, ("newborn VMs vanish",)),
    Ablation("breaker", _no_breaker, _BLIND, seed=2),
    Ablation("gate of ownership", _no_ownership, ("somebody names a VM that is not the preset's",)),
    Ablation("grace", _no_grace, ("a service hangs",)),
    Ablation("distrust of listings", _trusting_lists, _CELLS),
    Ablation("budget", _no_budget, ("edit a count",)),
    Ablation("evidence before a destroy", _no_evidence_first, ("a service hangs",)),
    Ablation("replacement first", _no_replacement_first, ("edit a spec",)),
    Ablation("spec guard", _no_spec_guard, ("a typing error in a count",)),
    Ablation("homes", _no_homes, _MOVES),
    Ablation("end of a cycle before a hand-over", _no_patience_with_cycles, _HASTE, per_hour=360),
    Ablation("counts of all replicas", _no_counts_of_others, (*_MOVES, *_LOUD)),
    Ablation("fitness", _no_fitness, ("a replica is cut off from a service",)),
)
