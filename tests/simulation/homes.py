"""Who looks after which preset, judged from outside: one home each, and nobody else in calm times.

Called by the judge every few seconds and at the end. It knows what the replicas believe and what is
true of the links between processes; of how a home is computed it knows nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from orchestrator.model import PresetName

from .processes import Process, Replica
from .suite import World

# What is still under way when everything works again: a refresh with what it tells, a session that
# ends with its lock delay, a cycle with its mutations.
SETTLING = 45.0
# So long may a preset be where it does not belong: a few looks, and the end of a cycle.
ASTRAY = 30.0
# So long may presets stay with a replica that misses a service: until its first question is given
# up, its patience, until all know it, and the end of a cycle that waits for that service.
CUT_OFF = 90.0
# The services that a replica's work needs, and without which it stays the owner of its locks.
NEEDED = ("preset", "iaas", "health")


class Homes:
    """Watches where the presets of one world are."""

    def __init__(self, world: World, broken: Callable[[str], None]) -> None:
        """`broken` is told what is wrong."""
        self._world = world
        self._broken = broken
        self._calm_since: float | None = None
        self._astray_since: dict[str, float] = {}
        self._cut_off_since: dict[str, float] = {}

    def look(self) -> None:
        """What can be seen of the replicas from outside."""
        self._all_at_home()
        self._nothing_in_hands_that_are_tied()

    def wrong(self) -> list[str]:
        """What is not at home, long after the last fault."""
        astray = ((preset, self._why_astray(preset)) for preset in self._presets())
        return [f"{preset} {why}" for preset, why in astray if why]

    def _all_at_home(self) -> None:
        now = self._world.kernel.now
        if any(map(is_troubled, self._world.processes)) or is_rough(self._world):
            self._calm_since = None
            self._astray_since.clear()
            return
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since < SETTLING:
            return
        for preset in self._presets():
            why = self._why_astray(preset)
            if not why:
                self._astray_since.pop(preset, None)
            elif now - self._astray_since.setdefault(preset, now) > ASTRAY:
                self._broken(f"{preset} {why}, and nothing was wrong for {ASTRAY:.0f} s")

    def _why_astray(self, preset: str) -> str:
        """How a preset is not where it belongs; "" when it is."""
        homes = {home(each, preset) for each in self._working()}
        if len(homes) != 1 or "" in homes:
            return f"has the homes {sorted(homes)}"
        owners = [owner(each) for each in self._working() if holds(each, preset)]
        return "" if set(owners) == homes else f"is at home at {homes} and held by {owners}"

    def _nothing_in_hands_that_are_tied(self) -> None:
        """Who cannot reach what the work needs has left it to those who can."""
        now = self._world.kernel.now
        weather = self._world.network.weather
        if weather.loses or weather.delays:
            self._cut_off_since.clear()
            return
        for replica in self._world.replicas:
            held = sorted(replica.parts.cycles.authority.tokens()) if replica.parts else []
            if not held or not self._is_tied(replica) or not self._can_another_work():
                self._cut_off_since.pop(replica.name, None)
            elif now - self._cut_off_since.setdefault(replica.name, now) > CUT_OFF:
                self._broken(f"{replica.name} is cut off and holds {held} for {CUT_OFF:.0f} s")

    def _can_another_work(self) -> bool:
        """Whether the services work, and a replica reaches all of them."""
        services = (self._world.presets, self._world.iaas, self._world.health)
        return not any(map(is_troubled, services)) and any(map(self._is_free, self._world.replicas))

    def _is_tied(self, replica: Replica) -> bool:
        """Whether a service is beyond the reach of a replica that works otherwise."""
        return self._can_tell(replica) and any(
            self._world.network.is_cut(replica.name, service)
            or self._world.network.is_cut(service, replica.name)
            for service in NEEDED
        )

    def _is_free(self, replica: Replica) -> bool:
        return self._can_tell(replica) and not self._is_tied(replica)

    def _can_tell(self, replica: Replica) -> bool:
        """Whether a replica works, and can hear and tell who works."""
        runtime = replica.runtime_address
        store = [each for each in self._world.runtimes if each.name == runtime]
        cut = self._world.network.is_cut
        is_linked = not cut(replica.name, runtime) and not cut(runtime, replica.name)
        return is_linked and not any(map(is_troubled, [replica, *store])) and has_session(replica)

    def _working(self) -> Iterator[Replica]:
        return (each for each in self._world.replicas if has_session(each))

    def _presets(self) -> list[str]:
        """Those that are declared, and have been for long."""
        ledger, removed = self._world.ledger, self._world.removed
        return [each for each in ledger.counts if each not in removed and not ledger.gone_for(each)]


def holders(world: World) -> dict[str, list[str]]:
    """Which replicas believe in their lock, by preset."""
    found: dict[str, list[str]] = {}
    for replica in filter(has_session, world.replicas):
        for preset in replica.parts.cycles.authority.tokens() if replica.parts else ():
            found.setdefault(str(preset), []).append(replica.name)
    return found


def spread(world: World) -> Counter[str]:
    """How many presets each replica holds."""
    return Counter(name for names in holders(world).values() for name in names)


def has_session(replica: Replica) -> bool:
    """Whether it believes that it may act."""
    if not replica.is_up or replica.parts is None:
        return False
    authority = replica.parts.cycles.authority
    return bool(authority.session_id) and authority._until > authority._clock.elapsed()


def owner(replica: Replica) -> str:
    """The name that its session bears."""
    return replica.parts.cycles.authority.owner if replica.parts else ""


def home(replica: Replica, preset: str) -> str:
    """Who looks after a preset, as a replica believes."""
    return replica.parts.cycles.replicas.home(PresetName(preset)) if replica.parts else ""


def holds(replica: Replica, preset: str) -> bool:
    """Whether it believes to hold a preset's lock."""
    return replica.parts is not None and preset in replica.parts.cycles.authority.tokens()


def is_troubled(process: Process) -> bool:
    """Whether it is down, stands still, or has too few turns."""
    is_starved = process.life is not None and process.starved_until > process.life.host.kernel.now
    return not process.is_up or process.is_paused or process.is_stopping or is_starved


def is_rough(world: World) -> bool:
    """Whether messages may not arrive in time, or not at all."""
    weather = world.network.weather
    return bool(weather.loses or weather.delays or weather.cut)
