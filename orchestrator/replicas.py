"""The live replicas, as the runtime service lists their sessions: whose each preset is, and what
the others' prober says.

Looks at the list every second and wakes the presets that come or go by it. What others should know
of this replica is in its labels, which go along with its session. Takes no lock and touches no VM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import timedelta

from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import ShepherdError

from .board import Tally
from .clients.runtime import Runtime
from .fitness import Fitness
from .homes import FULL, Member, home, moved
from .model import PresetName
from .schedule import Schedule
from .share import STEP, share

LOOK = timedelta(seconds=1)
# Until this replica has found itself in the list: nothing can begin before.
FIRST_LOOK = timedelta(milliseconds=100)
ROLE = "orchestrator"

_log = log.get("replicas")


class Replicas:
    """Who is there, who looks after what, and how much of it this replica takes."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        owner: str,
        facts: Mapping[str, str],
        tally: Callable[[], Tally],
        clock: Clock,
    ) -> None:
        """`facts` and `tally` are told to the others."""
        self._runtime = runtime
        self._owner = owner
        self._facts = facts
        self._tally = tally
        self._clock = clock
        self._members: Sequence[Member] = ()
        # Those that leave, too: their presets fall to others, and are not free yet.
        self._alive: Set[str] = frozenset()
        self._others = Tally()
        self._share = FULL
        self._is_fit = True
        self._is_leaving = False

    def home(self, preset: PresetName) -> str:
        """Owner of the replica that looks after a preset; "" as long as nobody can tell."""
        return home(preset, self._members)

    def knows(self, owner: str) -> bool:
        """Whether a replica is alive, as far as is known; one that is leaving is."""
        return owner in self._alive

    @property
    def others(self) -> Tally:
        """What the prober says of the presets of the other replicas."""
        return self._others

    def labels(self) -> Mapping[str, str]:
        """What others are told of this replica."""
        tally = self._tally()
        return {
            **self._facts,
            "role": ROLE,
            "share": str(self._share if self._is_fit else 0),
            **({"leaving": "yes"} if self._is_leaving else {}),
            "failing": str(tally.failing),
            "lost": str(tally.lost),
            "probed": str(tally.probed),
        }

    def leave(self) -> bool:
        """Look after nothing from now on, if there are others who will; whether there are."""
        others = [each for each in self._members if each.owner != self._owner]
        if others:
            self._is_leaving, self._members = True, others
        return bool(others)

    async def watch(self, schedule: Schedule, fitness: Fitness) -> None:
        """Look who is there, for ever; a replica that is not fit takes no work."""
        since = self._clock.elapsed()
        while True:
            if self._clock.elapsed() - since >= STEP:
                since = self._clock.elapsed()
                self._share = share(self._share, schedule.lateness())
            self._is_fit = fitness.is_fit()
            try:
                self._see(await self._runtime.sessions(), schedule)
            except ShepherdError as e:
                _log.debug("replicas cannot be listed", error=e.message)
            await self._clock.sleep(LOOK if self.knows(self._owner) else FIRST_LOOK)

    def _see(self, sessions: Iterable[pb.Session], schedule: Schedule) -> None:
        ours = [each for each in sessions if each.labels.get("role") == ROLE]
        self._alive = {each.owner for each in ours}
        self._others = sum((_tally(s) for s in ours if s.owner != self._owner), Tally())
        staying = {each.owner: _member(each) for each in ours if not _is_leaving(each)}
        if self._is_leaving:
            staying.pop(self._owner, None)
        before, self._members = self._members, sorted(staying.values())
        if before == self._members:
            return
        _log.info("replicas changed", replicas=[f"{m.owner} {m.share} %" for m in self._members])
        schedule.wake(moved(schedule.names(), before, self._members, owner=self._owner))


def is_replica(session: pb.Session) -> bool:
    """Whether a session is an orchestrator's."""
    return session.labels.get("role") == ROLE


def share_of(session: pb.Session) -> int:
    """How much of the work a replica takes, of 100."""
    return 0 if _is_leaving(session) else _member(session).share


def _member(session: pb.Session) -> Member:
    return Member(session.owner, min(_number(session, "share", FULL), FULL))


def _is_leaving(session: pb.Session) -> bool:
    return "leaving" in session.labels


def _tally(session: pb.Session) -> Tally:
    return Tally(*(_number(session, key, 0) for key in ("failing", "lost", "probed")))


def _number(session: pb.Session, key: str, default: int) -> int:
    """A label that is a number; another version may say something else."""
    text = session.labels.get(key, "")
    return int(text) if text.isascii() and text.isdigit() else default
