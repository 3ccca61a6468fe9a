"""The words of a scenario: what is given, and what happens.

Each line at the margin of a script is one of these. `test_scenarios` reads the files and tells what
followed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from orchestrator.model import (
    Check,
    Method,
    Pause,
    Policy,
    PresetName,
    Process,
    Removal,
    Replace,
    Spec,
    TerminationWish,
    VmId,
    VmState,
)
from tests.support.body import Body, Flaw
from tests.support.given import SPEC, seconds
from tests.support.world import World

Action = Callable[..., object]

_UNITS = {"s": 1, "min": 60, "h": 3600}
_CHOICES: dict[str, tuple[str, dict[str, object]]] = {
    "replace": ("replace", {each.name.lower(): each for each in Replace}),
    "scale_in_order": ("oldest_leaves_first", {"oldest": True, "newest": False}),
    "on_stopped": ("stopped_are_replaced", {"replace": True, "park": False}),
    "on_remove": ("deleted_on_removal", {"delete": True, "keep": False}),
}
_POLICY = {each.name for each in fields(Policy)}
_LISTS = {"zones", "flavors", "images"}
HELD_BACK = (
    "4 of 10 presets are removed: too many at once to be destroyed unasked (limit: 1 and 20 %). "
    "Approve it: vmshepherd preset reconcile web --approve-count"
)


def given(words: str) -> World:
    """The world in which a life begins."""
    world = World(spec=Spec(name=PresetName("web"), count=0, spec_hash=SPEC))
    for fact in words.split(", "):
        _take(world, fact)
    return world


def happen(world: World, words: str) -> None:
    """Let it happen."""
    for pattern, action in WHEN.items():
        if match := re.fullmatch(pattern, words):
            action(world, *match.groups())
            return
    raise ValueError(f"nothing of the kind can happen: {words}")


def time(number: str, unit: str) -> timedelta:
    """A length of time."""
    return seconds(int(number) * _UNITS[unit])


def _take(world: World, fact: str) -> None:
    """One fact about the preset or the cloud."""
    if fact == "a check":
        world.spec = replace(world.spec, check=Check())
    elif fact == "a cloud without request ids":
        world.idempotent = False
    elif fact == "a cloud that can reboot and rebuild":
        world.methods = frozenset(Method)
    elif match := re.fullmatch(r"(\d+|no) VMs elsewhere", fact):
        world.elsewhere = 0 if match[1] == "no" else int(match[1])
    elif match := re.fullmatch(r"a cycle every (\d+) (\w+)", fact):
        world.step = time(*match.groups())
    elif match := re.fullmatch(r"boots take (\d+) (\w+)", fact):
        world.boot = time(*match.groups())
    else:
        world.spec = _with(world.spec, *fact.split())


def _with(spec: Spec, key: str, *values: str) -> Spec:
    """The preset with one key more."""
    if key == "count":
        return replace(spec, count=int(values[0]))
    if key in _LISTS:
        alternatives: dict[str, Any] = {key: values}
        return replace(spec, **alternatives)
    return replace(spec, policy=replace(spec.policy, **_policy(key, values)))


def _policy(key: str, values: tuple[str, ...]) -> dict[str, Any]:
    if key in _CHOICES:
        name, choices = _CHOICES[key]
        return {name: choices[values[0]]}
    if key not in _POLICY:
        raise ValueError(f"nothing of the kind is declared: {key}")
    return {key: time(values[0], values[1]) if len(values) == 2 else int(values[0])}


def _body(**facts: object) -> Action:
    def action(world: World, name: str) -> None:
        for fact, value in facts.items():
            setattr(world.body(name), fact, value)

    return action


def _world(**facts: object) -> Action:
    def action(world: World) -> None:
        for fact, value in facts.items():
            setattr(world, fact, value)

    return action


def _declares(world: World, words: str) -> None:
    for fact in words.split(", "):
        _take(world, fact)


def _changes(world: World, spec_hash: str) -> None:
    world.spec = replace(world.spec, spec_hash=spec_hash)


def _flawed(flaw: Flaw) -> Action:
    def action(world: World, spec_hash: str) -> None:
        world.flaws = {**world.flaws, spec_hash: flaw}

    return action


def _fades(world: World, spec_hash: str, *length: str) -> None:
    world.flaws = {**world.flaws, spec_hash: Flaw(fades_after=time(*length))}


def _many(change: Action) -> Action:
    """The first so many VMs that live, or so many of a hundred."""

    def action(world: World, number: str, percent: str) -> None:
        alive = [body for body in world.alive() if not body.is_hung]
        many = round(len(alive) * int(number) / 100) if percent.strip() == "%" else int(number)
        for body in alive[:many]:
            change(world, body.vm_id)

    return action


def _recover(world: World) -> None:
    for body in world.bodies:
        body.is_hung = False


def _shuts_down(world: World, name: str, minutes: str) -> None:
    named: list[Body] = world.bodies if name == "every VM" else [world.body(name)]
    for body in named:
        body.shutdown_at = world.now + timedelta(minutes=int(minutes))


def _count(world: World, count: str) -> None:
    world.spec = replace(world.spec, count=int(count))


def _approve(world: World, count: str) -> None:
    world.wishes = replace(world.wishes, approved_count=int(count))


def _wish(world: World, name: str, insistence: str | None) -> None:
    force = insistence is not None
    wish = TerminationWish(vm_id=VmId(name), actor="ann", reason="it smells", force=force)
    world.wishes = replace(world.wishes, terminations=(wish,))


def _pause(world: World, process: str) -> None:
    pause = Pause(processes=frozenset({Process[process.upper()]}), actor="ann", reason="disk work")
    world.wishes = replace(world.wishes, pause=pause)


def _resume(world: World) -> None:
    world.wishes = replace(world.wishes, pause=None, resumes=world.wishes.resumes + 1)


def _protect(world: World, name: str) -> None:
    protections = world.wishes.protections | {VmId(name)}
    world.wishes = replace(world.wishes, protections=protections)


def _unprotect(world: World, name: str) -> None:
    protections = world.wishes.protections - {VmId(name)}
    world.wishes = replace(world.wishes, protections=protections)


def _removed(world: World) -> None:
    world.removal = Removal(since=world.now)


def _held_back(words: str) -> Action:
    def action(world: World) -> None:
        if world.removal is None:
            raise ValueError("the preset is not removed")
        world.removal = replace(world.removal, held_back=words)

    return action


def _full(world: World, kind: str, name: str, number: str) -> None:
    which = ("", name) if kind == "zone" else (name, "")
    if number == "no ":
        world.room.full.add(which)
    else:
        world.room.full.discard(which)


def _heals(world: World, how: str, name: str) -> None:
    world.body(name).healed_by = Method[how.upper()]


def _resized(world: World, name: str, flavor: str) -> None:
    body = world.body(name)
    body.placement = replace(body.placement, flavor=flavor)


_VM = r"(vm-\d+)"
_SPEC = r"VMs of (spec-\d+)"
_TIME = r"(\d+) (s|min|h)"
_SHARE = r"(\d+)( %| VMs)"
WHEN: dict[str, Action] = {
    rf"{_VM} dies": lambda world, name: world.kill(name),
    rf"{_VM} fails in the cloud": lambda world, name: world.kill(name, VmState.ERROR),
    rf"{_VM} vanishes": lambda world, name: world.vanish(name),
    rf"{_VM} hangs": _body(is_hung=True),
    rf"{_VM} answers again": _body(is_hung=False),
    rf"{_VM} is stopped": _body(state=VmState.STOPPED),
    rf"{_VM} is started": _body(state=VmState.RUNNING),
    rf"{_VM} cannot be deleted": _body(undeletable="refused"),
    rf"{_VM} ignores its deletion": _body(undeletable="ignored"),
    rf"{_VM} can be deleted": _body(undeletable=""),
    rf"({_VM[1:-1]}|every VM) announces its shutdown in (\d+) min": _shuts_down,
    rf"{_VM} is resized to (\w+)": _resized,
    rf"a (reboot|rebuild) heals {_VM}": _heals,
    rf"{_SHARE} hang": _many(_body(is_hung=True)),
    rf"{_SHARE} die": _many(lambda world, name: world.kill(name)),
    r"all answer again": _recover,
    r"the count is (\d+)": _count,
    r"the preset says (.+)": _declares,
    r"(spec-\d+) is declared": _changes,
    rf"{_SPEC} die at birth": _flawed(Flaw(is_stillborn=True)),
    rf"{_SPEC} never answer": _flawed(Flaw(is_mute=True)),
    rf"{_SPEC} stop answering after {_TIME}": _fades,
    rf"{_SPEC} are good": _flawed(Flaw()),
    r"the preset is removed": _removed,
    r"the preset is declared again": _world(removal=None),
    r"removals are held back": _held_back(HELD_BACK),
    r"the removals are approved": _held_back(""),
    r"(?:ann )?approves (\d+)": _approve,
    rf"ann wants {_VM} gone( by force)?": _wish,
    r"ann pauses (\w+)": _pause,
    r"ann resumes the preset": _resume,
    rf"ann protects {_VM}": _protect,
    rf"ann protects {_VM} no more": _unprotect,
    r"the quota is (\d+)": lambda world, number: setattr(world.room, "quota", int(number)),
    r"the quota of flavor (\w+) is (\d+)": lambda world, flavor, number: (
        world.room.flavor_quotas.update({flavor: int(number)})
    ),
    r"(zone|flavor) (\w+) has (no )?room": _full,
    r"zone (\w+) goes down": lambda world, zone: world.lose_zone(zone),
    r"zone (\w+) is back": lambda world, zone: world.regain_zone(zone),
    r"image (\w+) is missing": lambda world, image: world.room.missing_images.add(image),
    rf"a cycle comes every {_TIME}": lambda world, *length: setattr(world, "step", time(*length)),
    rf"boots take {_TIME}": lambda world, *length: setattr(world, "boot", time(*length)),
    rf"VMs answer {_TIME} after they run": lambda world, *length: setattr(
        world, "warmup", time(*length)
    ),
    r"the next create is answered by: (.+)": lambda world, how: world.create_faults.append(how),
    r"the next termination is answered by: (.+)": lambda world, how: world.terminate_faults.append(
        how
    ),
    r"the next repair is answered by: (.+)": lambda world, how: world.repair_faults.append(how),
    r"the prober is blind": _world(is_blind=True),
    r"the prober sees": _world(is_blind=False, is_prober_down=False),
    r"the prober is down": _world(is_prober_down=True),
    r"the listing is not whole": _world(is_listing_whole=False),
    r"the listing is whole": _world(is_listing_whole=True),
    r"the image is bad": _world(is_stillborn=True),
    r"the image is good": _world(is_stillborn=False),
    r"another holder takes over": lambda world: world.restart(),
    r"the clock is set back by (\d+) h": lambda world, hours: setattr(
        world, "behind", timedelta(hours=int(hours))
    ),
}
