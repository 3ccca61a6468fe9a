"""Pure: of what and where the next VMs are made, where a preset leaves a choice.

Images and flavors in the declared order, zones so that the VMs are spread evenly. What the cloud
just refused is left out for a while, as widely as the class of the refusal says; each refusal in a
row doubles the while. Nothing is ever destroyed for the sake of balance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from .failures import Scope, class_of, wait_after
from .model import Create, Fate, Memory, Outcome, Placement, Refusal, Shortage, Spec
from .stock import Stock


def choose(number: int, stock: Stock) -> tuple[tuple[Placement, ...], tuple[Refusal, ...]]:
    """Placements for so many VMs; fewer when the cloud has none at present, and why."""
    spec, now = stock.seen.spec, stock.seen.now
    load = Counter(each.vm.zone for each in stock.alive)
    load.update(intent.placement.zone for intent in stock.open_intents)
    chosen = list[Placement]()
    for _ in range(number):
        found = next(_free(spec, load, stock.memory.shortages, now), None)
        if found is None:
            return tuple(chosen), (_nowhere(stock.memory.shortages, now),)
        load[found.zone] += 1
        chosen.append(found)
    return tuple(chosen), ()


def after(
    shortages: tuple[Shortage, ...], creates: Sequence[Outcome], spec: Spec, now: datetime
) -> tuple[Shortage, ...]:
    """What is short once these creates were tried."""
    for outcome in creates:
        if not isinstance(outcome.step, Create):
            continue
        placement = outcome.step.intent.placement
        if outcome.fate is Fate.DONE:
            shortages = tuple(each for each in shortages if not _covers(each.placement, placement))
        elif outcome.fate is Fate.FAILED:
            shortages = _with(shortages, outcome, _short(placement, outcome), spec=spec, now=now)
    return shortages


def still_meant(memory: Memory, spec: Spec) -> tuple[Shortage, ...]:
    """What is remembered of shortages. A changed spec is tried at once where the former one waited:
    it may be the cure. What the preset does not name any more is forgotten.
    """
    if memory.backoff.failures and memory.backoff.spec_hash != spec.spec_hash:
        return ()
    return tuple(each for each in memory.shortages if _is_declared(each.placement, spec))


def is_choice_left(shortages: Iterable[Shortage], spec: Spec, now: datetime) -> bool:
    """Whether a VM may be made somewhere at once."""
    return next(_free(spec, Counter(), tuple(shortages), now), None) is not None


def has_choice(spec: Spec) -> bool:
    """Whether the preset leaves a choice at all."""
    return bool(spec.images or spec.flavors or spec.zones)


def _free(
    spec: Spec, load: Counter[str], shortages: Sequence[Shortage], now: datetime
) -> Iterator[Placement]:
    short = [each.placement for each in shortages if now < each.until]
    zones = sorted(spec.zones or ("",), key=lambda zone: load[zone])
    for image in spec.images or ("",):
        for flavor in spec.flavors or ("",):
            for zone in zones:
                placement = Placement(image=image, flavor=flavor, zone=zone)
                if not any(_covers(each, placement) for each in short):
                    yield placement


def _is_declared(short: Placement, spec: Spec) -> bool:
    return (
        short.image in {"", *spec.images}
        and short.flavor in {"", *spec.flavors}
        and short.zone in {"", *spec.zones}
    )


def _covers(short: Placement, placement: Placement) -> bool:
    """Whether a shortage, in which "" is any, is about this placement."""
    return (
        short.image in {"", placement.image}
        and short.flavor in {"", placement.flavor}
        and short.zone in {"", placement.zone}
    )


def _with(
    shortages: tuple[Shortage, ...],
    outcome: Outcome,
    about: Placement,
    *,
    spec: Spec,
    now: datetime,
) -> tuple[Shortage, ...]:
    if class_of(outcome.reason).scope is Scope.NOTHING or not has_choice(spec):
        return shortages
    known = next((each for each in shortages if each.placement == about), None)
    if known is not None and now < known.until:
        return shortages  # a second refusal of the same batch tells nothing new
    before = known.failures if known else 0
    wait = wait_after(
        outcome.reason,
        before=before,
        at_least=outcome.retry_after,
        longest=spec.policy.longest_backoff,
    )
    fresh = Shortage(
        placement=about,
        until=now + wait,
        reason=outcome.reason,
        message=outcome.message,
        failures=before + 1,
    )
    return (*(each for each in shortages if each is not known), fresh)


def _short(placement: Placement, outcome: Outcome) -> Placement:
    """What a refusal is about, as widely as its class says."""
    scope = class_of(outcome.reason).scope
    if scope is Scope.FLAVOR_IN_ZONE:
        return replace(placement, image="")
    if scope is Scope.FLAVOR:
        return replace(placement, image="", zone="")
    if scope is Scope.IMAGE:
        return replace(placement, flavor="", zone="")
    return replace(placement, zone="")


def _nowhere(shortages: Iterable[Shortage], now: datetime) -> Refusal:
    soonest = min((each for each in shortages if now < each.until), key=lambda each: each.until)
    wait = (soonest.until - now).total_seconds()
    message = (
        f"no image, flavor and zone of the preset is to be had; in {wait:.0f} s it is tried again: "
        f"{class_of(soonest.reason).words}{soonest.message}"
    )
    return Refusal("NO_PLACEMENT", message)
