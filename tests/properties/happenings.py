"""What may happen to a group, one thing after the other: each a word and a change of the world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from orchestrator.model import (
    Method,
    Pause,
    Process,
    Removal,
    Replace,
    TerminationWish,
    VmId,
    VmState,
    Wishes,
)
from tests.support.body import Flaw
from tests.support.given import seconds
from tests.support.room import Room
from tests.support.world import World

Event = Callable[[World, int], None]
FATES = ["request lost", "answer lost", "late", "THROTTLED", "UNAVAILABLE"]
ENDS = ["request lost", "answer lost", "refused"]


def _some(world: World, which: int) -> VmId | None:
    alive = world.alive()
    return alive[which % len(alive)].vm_id if alive else None


def _on_one(change: Callable[[World, VmId], None]) -> Event:
    def event(world: World, which: int) -> None:
        if (vm_id := _some(world, which)) is not None:
            change(world, vm_id)

    return event


def _set_state(state: VmState) -> Event:
    def change(world: World, vm_id: VmId) -> None:
        world.body(vm_id).state = state

    return _on_one(change)


def _set(**facts: object) -> Event:
    """A fact about one VM."""

    def change(world: World, vm_id: VmId) -> None:
        for name, value in facts.items():
            setattr(world.body(vm_id), name, value)

    return _on_one(change)


def _switch(**facts: object) -> Event:
    """A fact about the world."""

    def event(world: World, _: int) -> None:
        for name, value in facts.items():
            setattr(world, name, value)

    return event


def scale(world: World, which: int) -> None:
    world.spec = replace(world.spec, count=which)
    world.wishes = replace(world.wishes, approved_count=which)


def _wish(world: World, vm_id: VmId) -> None:
    wish = TerminationWish(vm_id=vm_id, actor="ann", reason="it smells")
    world.wishes = replace(world.wishes, terminations=(wish,))


def _insist(world: World, vm_id: VmId) -> None:
    wish = TerminationWish(vm_id=vm_id, actor="ann", reason="it smells", force=True)
    world.wishes = replace(world.wishes, terminations=(wish,))


def _protect(world: World, vm_id: VmId) -> None:
    world.wishes = replace(world.wishes, protections=world.wishes.protections | {vm_id})


def _resume(world: World, _: int) -> None:
    world.wishes = Wishes(resumes=world.wishes.resumes + 1)


def _pause(world: World, which: int) -> None:
    process = list(Process)[which % len(Process)]
    world.wishes = replace(world.wishes, pause=Pause(processes=frozenset({process})))


def _shut_down_soon(world: World, vm_id: VmId) -> None:
    world.body(vm_id).shutdown_at = world.now + seconds(300)


def _shut_down_all(world: World, _: int) -> None:
    for body in world.bodies:
        body.shutdown_at = world.now + seconds(200)


def _stop_what_is_due(world: World, _: int) -> None:
    for body in world.bodies:
        if body.shutdown_at is not None and body.shutdown_at <= world.now:
            body.state = VmState.STOPPED


def _lose_creates(world: World, which: int) -> None:
    world.create_faults = [FATES[(which + number) % len(FATES)] for number in range(3)]


def _lose_terminations(world: World, which: int) -> None:
    world.terminate_faults = [ENDS[(which + number) % 3] for number in range(2)]


def _squeeze(world: World, which: int) -> None:
    world.room.quota = which


def _new_spec(world: World, which: int) -> None:
    world.spec = replace(world.spec, spec_hash=f"spec-{which % 3}")


def _flawed_spec(flaw: Flaw) -> Event:
    """The next spec has this flaw."""

    def event(world: World, which: int) -> None:
        _new_spec(world, which)
        world.flaws = {world.spec.spec_hash: flaw}

    return event


def _declare(**facts: object) -> Event:
    """Other words in the policy."""

    def event(world: World, _: int) -> None:
        changes: dict[str, Any] = facts
        world.spec = replace(world.spec, policy=replace(world.spec.policy, **changes))

    return event


def _declare_places(world: World, which: int) -> None:
    world.spec = replace(world.spec, zones=("a", "b", "c")[: which % 4], flavors=("big", "small"))


def _squeeze_flavor(world: World, which: int) -> None:
    world.room.flavor_quotas = {"big": which}


def _lose_many(world: World, which: int) -> None:
    for body in world.alive()[: which + 1]:
        body.is_hung = True


def _kill_many(world: World, which: int) -> None:
    for body in world.alive()[: which + 1]:
        body.state = VmState.TERMINATED


def _recover_all(world: World, _: int) -> None:
    for body in world.bodies:
        body.is_hung = False


def _curable(world: World, which: int) -> None:
    method = list(Method)[which % 2]
    for body in world.bodies:
        body.healed_by = method


def _resize(world: World, vm_id: VmId) -> None:
    body = world.body(vm_id)
    body.placement = replace(body.placement, flavor="huge")


def _lose_repairs(world: World, which: int) -> None:
    kinds = ["request lost", "answer lost", "THROTTLED", "CONFLICT"]
    world.repair_faults = [kinds[(which + number) % 4] for number in range(2)]


def _remove(world: World, _: int) -> None:
    world.removal = world.removal or Removal(since=world.read)


def _hold_back(world: World, _: int) -> None:
    if world.removal is not None:
        world.removal = replace(world.removal, held_back="too many at once")


def _blind_for_one(world: World, vm_id: VmId) -> None:
    world.blind_only = world.blind_only | {vm_id}


EVENTS: dict[str, Event] = {
    "nothing": _switch(),
    "scale": scale,
    "killed": _set_state(VmState.TERMINATED),
    "failed": _set_state(VmState.ERROR),
    "vanished": _on_one(lambda world, vm_id: world.vanish(vm_id)),
    "hangs": _set(is_hung=True),
    "recovers": _set(is_hung=False),
    "stopped": _set_state(VmState.STOPPED),
    "moved": _set_state(VmState.TRANSITIONING),
    "unknown": _set_state(VmState.UNKNOWN),
    "runs": _set_state(VmState.RUNNING),
    "protected": _set(is_protected=True),
    "deletion refused": _set(undeletable="refused"),
    "deletion ignored": _set(undeletable="ignored"),
    "shutdown soon": _on_one(_shut_down_soon),
    "shutdown of all": _shut_down_all,
    "shutdown happens": _stop_what_is_due,
    "wish": _on_one(_wish),
    "wish by force": _on_one(_insist),
    "protected by a person": _on_one(_protect),
    "pause": _pause,
    "resume": _resume,
    "many hang": _lose_many,
    "many die": _kill_many,
    "all recover": _recover_all,
    "repairs cure": _curable,
    "repairs fail": _lose_repairs,
    "resized": _on_one(_resize),
    "places": _declare_places,
    "zone a down": lambda world, _: world.lose_zone("a"),
    "zone a back": lambda world, _: world.regain_zone("a"),
    "quota of a flavor": _squeeze_flavor,
    "image fails at birth": _flawed_spec(Flaw(is_stillborn=True)),
    "image never answers": _flawed_spec(Flaw(is_mute=True)),
    "image fades": _flawed_spec(Flaw(fades_after=seconds(15))),
    "slow service": _switch(warmup=seconds(100)),
    "rolling": _declare(replace=Replace.ROLLING),
    "on failure": _declare(replace=Replace.ON_FAILURE),
    "surge 0": _declare(max_surge=0, max_unavailable=1),
    "surge 3": _declare(max_surge=3),
    "repairs": _declare(reboots=1, rebuilds=1),
    "keep failed": _declare(keep_failed=2),
    "lifetime": _declare(max_lifetime=timedelta(minutes=20)),
    "removed": _remove,
    "held back": _hold_back,
    "declared again": _switch(removal=None),
    "unmanaged": lambda world, _: setattr(world, "spec", replace(world.spec, managed=False)),
    "managed": lambda world, _: setattr(world, "spec", replace(world.spec, managed=True)),
    "creates fail": _lose_creates,
    "terminations fail": _lose_terminations,
    "quota": _squeeze,
    "no quota": lambda world, _: setattr(world, "room", Room()),
    "slow listing": _switch(lag=seconds(40)),
    "fast listing": _switch(lag=seconds(0)),
    "listing breaks": _switch(is_listing_whole=False),
    "listing whole": _switch(is_listing_whole=True),
    "blind": _switch(is_blind=True),
    "blind for one": _on_one(_blind_for_one),
    "sees": _switch(is_blind=False, blind_only=frozenset()),
    "prober down": _switch(is_prober_down=True),
    "prober up": _switch(is_prober_down=False),
    "bad image": _switch(is_stillborn=True),
    "good image": _switch(is_stillborn=False),
    "slow boot": _switch(boot=seconds(700)),
    "fast boot": _switch(boot=seconds(20)),
    "new spec": _new_spec,
    "crash before sending": _switch(crash="before sending"),
    "crash before recall": _switch(crash="before recall"),
    "restart": lambda world, _: world.restart(),
    "clock set back": _switch(behind=timedelta(hours=3)),
}
