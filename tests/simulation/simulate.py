"""One seed from beginning to end: build up, chaos, healing, and the quiet that must follow."""

from __future__ import annotations

import gc
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from unittest import mock

import structlog

from iaas_service.domain import VmState
from orchestrator import replicas

from . import policies
from .faults import PER_HOUR, Chaos
from .invariants import Judge, Violation
from .ledger import ECHO
from .people import People
from .suite import Shape, World, world

HOUR = 3600.0
BUILD_UP = 120.0
HEALING = 600.0
QUIET = 120.0
LOOK_EVERY = 5.0
REPLICAS_LOOK = timedelta(seconds=3)
# The level of the log that is heard.
_ERROR = 40


@dataclass(frozen=True, kw_only=True)
class Course:
    """What shall happen in a world."""

    hours: float = 1.0
    per_hour: float = PER_HOUR
    only: tuple[str, ...] = ()
    """Kinds of faults; none named: a swarm drawn by the seed."""
    patch: Callable[[World], None] = lambda _: None
    """What is different about the world, once it is made."""


@dataclass(frozen=True)
class Verdict:
    """What became of one seed."""

    seed: int
    hours: float
    faults: int
    mutations: int
    digest: str
    steps: int
    violations: tuple[Violation, ...]
    lines: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether everything held."""
        return not self.violations


def simulate(seed: int, course: Course | None = None, *, shape: Shape | None = None) -> Verdict:
    """Run one seed; it stops at the first violation."""
    with _undisturbed(), _unhurried(), _overheard() as bugs:
        return _simulate(shape or Shape.of(seed), course or Course(), bugs)


def _simulate(shape: Shape, course: Course, bugs: list[str]) -> Verdict:
    with world(shape) as made:
        made.kernel.errors = bugs
        course.patch(made)
        judge, people = Judge(made), People(made)
        chaos = Chaos(made, people, only=course.only, per_hour=course.per_hour)
        _run(made, judge, people, chaos, hours=course.hours)
        return Verdict(
            seed=shape.seed,
            hours=made.kernel.now / HOUR,
            faults=chaos.struck,
            mutations=made.truth.mutations,
            digest=made.trace.digest,
            steps=made.kernel.steps,
            violations=tuple(judge.violations),
            lines=tuple(made.trace.lines),
        )


def _run(made: World, judge: Judge, people: People, chaos: Chaos, *, hours: float) -> None:
    _populate(made, people)
    made.start()
    if not _pass(made, judge, BUILD_UP):
        return
    chaos.begin()
    if not _pass(made, judge, hours * HOUR):
        return
    chaos.heal()
    made.trace.add(made.kernel.now, "= all faults cease")
    _settle(made, people)
    _must_converge(made, judge)


def _populate(made: World, people: People) -> None:
    chance = random.Random(f"presets {made.shape.seed}")
    for number in range(made.shape.presets):
        keys = policies.declared(made.shape.seed, number)
        people.declare(f"web-{number}", chance.randint(2, 7), **keys)
        made.truth.put_foreign(f"web-{number}-1", {})
        made.truth.put_foreign(f"web-{number}", {"vmshepherd_preset": f"web-{number}"})


def _settle(made: World, people: People) -> None:
    """People take their hands away, and mend what only people can."""
    # Rollouts that have only begun end within the time, too: VM after VM is waited for.
    made.truth.temper.boot, made.truth.temper.warming = (3.0, 8.0), (0.0, 10.0)
    people.end_lifetimes()
    # What was asked for long ago may still arrive.
    made.kernel.call_later(ECHO / 2, lambda: people.let_go(made.replicas[0].name))
    for body in made.truth.bodies.values():
        if body.is_alive and body.state is VmState.PENDING:
            made.truth.hurry(body)
        if body.is_sick and body.is_alive:
            body.is_sick = False
            made.truth.feel(body)


def _must_converge(made: World, judge: Judge) -> None:
    """I8: as declared within the time, and then quiet."""
    healed = made.kernel.now
    end = healed + HEALING
    while made.kernel.now < end:
        if not _pass(made, judge, LOOK_EVERY):
            return
        still = made.kernel.now - max(made.truth.last_mutation, healed + ECHO)
        if still > QUIET and not judge.converged() and judge.is_steady():
            break
    for wrong in judge.converged():
        judge.failed("I8", wrong)
    before = made.truth.mutations
    if _pass(made, judge, QUIET) and made.truth.mutations != before:
        judge.failed("I8", f"{made.truth.mutations - before} mutations after all was as declared")


def _pass(made: World, judge: Judge, seconds: float) -> bool:
    """Let time pass, looking now and then; False at the first violation."""
    end = made.kernel.now + seconds
    while made.kernel.now < end:
        made.run(min(LOOK_EVERY, end - made.kernel.now))
        judge.look()
        if judge.violations:
            return False
    return True


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage is collected at moments that differ from run to run; and when a world ends, the
    last complaints of those who were killed in it are heard by nobody.
    """
    was_enabled, hook = gc.isenabled(), sys.unraisablehook
    gc.disable()
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
        if was_enabled:
            gc.enable()


@contextmanager
def _unhurried() -> Iterator[None]:
    """Replicas look who is there as much less often as they look at their presets: what each thinks
    of the others is old for longer, which makes nothing easier.
    """
    with mock.patch.object(replicas, "LOOK", REPLICAS_LOOK):
        yield


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """The log says nothing to people; what it calls a bug is an error of the simulation."""
    bugs: list[str] = []

    def hear(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
        if "bug" in str(event.get("event")):
            bugs.append("; ".join(f"{key}={value}" for key, value in event.items()))
        raise structlog.DropEvent

    former = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, hear],
        wrapper_class=structlog.make_filtering_bound_logger(_ERROR),
    )
    try:
        yield bugs
    finally:
        structlog.configure(**former)
