"""What happened to one preset, as values: a timeline is a head and records in the order of time.

Between two records nothing changes. Moments are seconds after the start; a negative one lies before
it. `reading` and `writing` are its form on disk, `world` plays it; nothing is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from ..model import Cloud, PresetName, Process, Verdict, VmId, VmState

VERSION = 1

# What a fresh VM takes to run where a timeline does not say it.
BOOT_SECONDS = 60.0
# How long a preset stands without a holder where a timeline does not say it: a session's life.
TAKEOVER_SECONDS = 30.0

# Words that stand for VMs: all that there are, and those that the replayed policy makes.
ALL = VmId("all")
NEW = VmId("new")


class Doer(Enum):
    """Whose doing a change was. What the recorded holder did is left out of a replay."""

    CLOUD = auto()
    PERSON = auto()
    HOLDER = auto()


class Action(Enum):
    """What a person asked of the orchestrator."""

    PAUSE = auto()
    RESUME = auto()
    APPROVE = auto()
    TERMINATE = auto()
    PROTECT = auto()
    UNPROTECT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Appears:
    """A VM is there from now on. At the start it stands already; later it is somebody's doing."""

    at: float
    vm_id: VmId
    by: Doer = Doer.CLOUD
    state: VmState = VmState.RUNNING
    verdict: Verdict = Verdict.HEALTHY
    name: str = ""
    image: str = ""
    flavor: str = ""
    zone: str = ""
    spec_hash: str = ""
    created: float = 0
    shutdown: float | None = None
    protected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """The cloud says something else of a VM; of `NEW`: what becomes of VMs that are made now."""

    at: float
    vm_id: VmId
    state: VmState
    by: Doer = Doer.CLOUD
    cloud_state: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A VM is not there any more."""

    at: float
    vm_id: VmId
    by: Doer


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictChange:
    """A probe of a VM says something else; of `ALL` with None: each VM's own verdict again."""

    at: float
    vm_id: VmId
    verdict: Verdict | None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingChange:
    """The cloud's listing is whole from now on, or is not."""

    at: float
    complete: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuses:
    """The cloud refuses creates, of this image, flavor and zone where they are named."""

    at: float
    reason: str
    until: float | None = None
    message: str = ""
    image: str = ""
    flavor: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootTime:
    """VMs that are made from now on take so long to run."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """The preset is declared differently from now on; None leaves a thing as it is."""

    at: float
    count: int | None = None
    spec_hash: str | None = None
    removed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A person asks for something."""

    at: float
    action: Action
    vm_id: VmId | None = None
    count: int | None = None
    processes: frozenset[Process] = frozenset()
    until: float | None = None
    force: bool = False
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderLost:
    """Nobody looks at the preset until another holder takes over."""

    at: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSet:
    """The holder's clock is behind by so many seconds from now on; ahead when negative."""

    at: float
    behind: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What the same prober sees of all other presets from now on."""

    at: float
    failing: int
    probed: int


Record = (
    Appears
    | StateChange
    | Gone
    | VerdictChange
    | ListingChange
    | Refuses
    | BootTime
    | Edit
    | Asked
    | HolderLost
    | ClockSet
    | Others
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What holds when a timeline begins, and how long it lasts in seconds."""

    preset: PresetName
    count: int
    spec_hash: str
    start: datetime
    length: float
    boot_time: float = BOOT_SECONDS
    cloud: Cloud = field(default_factory=Cloud)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened, from the start to the end of its length."""

    head: Head
    records: tuple[Record, ...]

    @property
    def counts(self) -> set[int]:
        """Every count that is declared at some time."""
        edited = (each.count for each in self.records if isinstance(each, Edit))
        return {self.head.count, *(count for count in edited if count is not None)}

    @property
    def has_verdicts(self) -> bool:
        """Whether anything is known of a check."""
        return any(
            isinstance(each, VerdictChange)
            or (isinstance(each, Appears) and each.verdict is not Verdict.UNKNOWN)
            for each in self.records
        )
