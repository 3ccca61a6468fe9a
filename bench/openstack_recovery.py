"""`recovery`: a server deleted behind the suite's back, and how long until all are there again.

The whole suite in one process (`vmshepherd up`), with the settings of production; a preset whose
servers need no check. Time runs from the delete call until as many as declared are ACTIVE again,
judged by the bare API. In the same run: what a create alone takes nova, and what it costs to watch
while nothing happens.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from bench.openstack_stage import Asked, Stage, cpu_seconds
from bench.openstack_suite import Shepherd
from bench.replicas_figures import spread
from tests.e2e.waiting import until
from tests.openstack.cloud.api import Refused

PRESET: Final = "web"
_PATIENCE: Final = 120.0
_LOOK: Final = 0.1
# The suite rests between two trials: nothing is looked at sooner because of the last one.
_REST_SECONDS: Final = (12.0, 14.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One server that was deleted; seconds since the delete call."""

    noticed: float
    """When the suite listed its servers because of it."""
    ordered: float
    """When it asked for the new one."""
    whole: float
    """When all were ACTIVE again."""
    calls: tuple[str, ...]
    """What was asked between the first of both and the second."""


def show(
    stage: Stage,
    *,
    trials: int,
    vms: int,
    aim: float,
    idle_seconds: float,
    watch_interval: str = "",
    seed: str = "1",
) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what was wrong: a median above the aim, or servers that are not back."""
    chance = random.Random(seed)  # noqa: S311  to be repeated, not secret
    options = {"watch_interval": watch_interval} if watch_interval else {}
    suite = Shepherd(stage, options=options)
    try:
        suite.want(PRESET, vms)
        suite.up()
        suite.settle(_PATIENCE)
        time.sleep(_REST_SECONDS[0])
        idle = _idle(stage, suite, idle_seconds)
        done, creates = list[Trial](), list[float]()
        for _ in range(trials):
            creates.append(_bare_create(stage))
            time.sleep(chance.uniform(*_REST_SECONDS))
            done.append(_trial(stage, chance, vms))
            suite.settle(_PATIENCE)
        wrong = suite.unsettled()
    finally:
        suite.close()
    found = {"aim_median_seconds": aim, **_figures(done, creates, idle)}
    median = found["recovery_seconds"]["median"]
    if median > aim:
        wrong.append(f"the median is {median:.1f} s, where {aim:g} s are the aim")
    return found, wrong


def _trial(stage: Stage, chance: random.Random, vms: int) -> Trial:
    victim = chance.choice(sorted(stage.active()))
    begun = time.monotonic()
    stage.project.delete(victim)
    until(
        lambda: len(stage.active() - {victim}) >= vms,
        f"{vms} are ACTIVE again",
        seconds=_PATIENCE,
        pause=_LOOK,
    )
    whole = time.monotonic() - begun
    asked = stage.ledger.since(begun)
    ordered = next(each.at for each in asked if each.is_create)
    listed = [each.at for each in asked if _is_listing(each) and each.at < ordered][-1]
    return Trial(
        noticed=listed - begun,
        ordered=ordered - begun,
        whole=whole,
        calls=tuple(each.kind for each in asked if listed < each.at < ordered),
    )


def _is_listing(asked: Asked) -> bool:
    return asked.kind == "list all, a page"


def _bare_create(stage: Stage) -> float:
    """What nova alone takes, from the order until it is ACTIVE; gone again behind it."""
    begun = time.monotonic()
    made = stage.project.order("bare")
    until(lambda: made in stage.active(), "it is ACTIVE", seconds=_PATIENCE, pause=_LOOK)
    took = time.monotonic() - begun
    stage.project.delete(made)
    until(lambda: _is_gone(stage, made), "it is gone", seconds=_PATIENCE, pause=_LOOK)
    return took


def _is_gone(stage: Stage, server_id: str) -> bool:
    try:
        stage.project.server(server_id)
    except Refused as e:
        return e.status == 404  # noqa: PLR2004
    return False


def _idle(stage: Stage, suite: Shepherd, seconds: float) -> dict[str, Any]:
    """What watching costs while nothing happens."""
    begun, cpu = time.monotonic(), cpu_seconds(suite.pids())
    time.sleep(seconds)
    took = time.monotonic() - begun
    calls = Counter(each.kind for each in stage.ledger.since(begun))
    return {
        "seconds": round(took, 1),
        "calls_a_second": round(calls.total() / took, 2),
        "calls_by_kind": dict(calls),
        "cpu_percent_of_a_core": round((cpu_seconds(suite.pids()) - cpu) / took * 100, 1),
    }


def _figures(
    trials: Sequence[Trial], creates: Sequence[float], idle: dict[str, Any]
) -> dict[str, Any]:
    whole = spread(trial.whole for trial in trials)
    bare = spread(creates)
    return {
        "recovery_seconds": whole,
        "recovery_of_each": [round(trial.whole, 2) for trial in trials],
        "bare_create_seconds": bare,
        "beyond_the_bare_create_seconds": round(whole["median"] - bare["median"], 2),
        "delete_to_listing_seconds": spread(trial.noticed for trial in trials),
        "delete_to_order_seconds": spread(trial.ordered for trial in trials),
        "calls_from_listing_to_order": dict(Counter(chain(*(trial.calls for trial in trials)))),
        "order_to_active_seconds": spread(trial.whole - trial.ordered for trial in trials),
        "idle": idle,
        "load_of_the_machine": [round(each, 1) for each in os.getloadavg()],
    }
