"""The values that decisions are made of: what was seen, what is remembered, what shall be done.

Frozen, standard library only; every time is an aware UTC datetime by the holder's clock. The shell
makes observations of them and carries plans out; the pure files between see nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import NewType

PresetName = NewType("PresetName", str)
VmId = NewType("VmId", str)
RequestId = NewType("RequestId", str)


class VmState(Enum):
    """What the cloud says of a VM."""

    PENDING = auto()
    RUNNING = auto()
    STOPPED = auto()
    TRANSITIONING = auto()
    DELETING = auto()
    TERMINATED = auto()
    ERROR = auto()
    UNKNOWN = auto()


class VmStatus(Enum):
    """What a VM is for us: the cloud's state, the clock and the check taken together."""

    PENDING = auto()
    RUNNING = auto()
    UNHEALTHY = auto()
    NEARBY_SHUTDOWN = auto()
    AFTER_TIME_SHUTDOWN = auto()
    STOPPED = auto()
    DELETING = auto()
    TERMINATED = auto()
    ERROR = auto()
    UNKNOWN = auto()


class Verdict(Enum):
    """What a probe means for a VM; UNKNOWN says nothing about it."""

    HEALTHY = auto()
    UNHEALTHY = auto()
    UNKNOWN = auto()


class Process(Enum):
    """Parts of the work that people can pause one by one."""

    CREATE = auto()
    REPLACE = auto()
    HEALTH = auto()
    ROLLOUT = auto()
    SCALE_IN = auto()


class Reason(Enum):
    """Why a VM is destroyed."""

    DEAD = auto()
    UNHEALTHY = auto()
    BOOT_TIMEOUT = auto()
    SURPLUS = auto()
    TIMED_SHUTDOWN = auto()
    OPERATOR = auto()


class IntentPhase(Enum):
    """How far a create came."""

    PLANNED = auto()
    SENT = auto()
    CONFIRMED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How a preset's VMs are judged from outside."""

    fall: int = 3
    rise: int = 2
    min_failing_time: timedelta = timedelta(seconds=30)
    observe_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits and patience; the defaults are the safe ones."""

    max_surge: int = 1
    max_unavailable: int = 1
    startup_grace: timedelta = timedelta(seconds=120)
    boot_timeout: timedelta = timedelta(minutes=10)
    max_deletions_per_cycle: int | None = None
    shutdown_notice: timedelta = timedelta(minutes=10)
    breaker_count: int = 3
    breaker_percent: int = 34
    oldest_leaves_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a group shall be, as far as decisions need it."""

    name: PresetName
    count: int
    spec_hash: str
    managed: bool = True
    check: Check | None = None
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A VM of ours as the cloud reports it now."""

    vm_id: VmId
    state: VmState
    name: str = ""
    provider: str = ""
    cloud_state: str = ""
    fault: str = ""
    addresses: tuple[str, ...] = ()
    image: str = ""
    flavor: str = ""
    zone: str = ""
    created: datetime | None = None
    shutdown_at: datetime | None = None
    protected: bool = False
    request_id: RequestId = RequestId("")
    fencing_token: int = 0
    spec_hash: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """What one probe said."""

    verdict: Verdict
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What one prober says of all presets together: a blind prober condemns everybody at once."""

    failing: int = 0
    probed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """What a provider promises about creates."""

    idempotent: bool = True
    horizon: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Work that a person stopped; no process named means all of it."""

    processes: frozenset[Process] = frozenset()
    actor: str = ""
    reason: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """Whether its time has passed."""
        return self.until is not None and self.until <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminationWish:
    """A VM that a person wants gone."""

    vm_id: VmId
    actor: str = ""
    reason: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Everything that people asked of a preset."""

    pause: Pause | None = None
    terminations: tuple[TerminationWish, ...] = ()
    approved_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A create whose VM has not been seen yet: capacity, until it is found or disproved."""

    request_id: RequestId
    name: str
    spec_hash: str
    phase: IntentPhase = IntentPhase.PLANNED
    sent_at: datetime | None = None
    attempts: int = 0
    vm_id: VmId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmMemory:
    """What is remembered about one VM."""

    first_seen: datetime
    first_running: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    passes: int = 0
    was_healthy: bool = False
    is_unhealthy: bool = False
    terminating_since: datetime | None = None
    terminate_failed_at: datetime | None = None
    boot_failure_counted: bool = False

    @property
    def is_terminating(self) -> bool:
        """Whether the cloud accepted its termination."""
        return self.terminating_since is not None and not self.is_doubtful

    @property
    def is_doubtful(self) -> bool:
        """Whether the answer to its termination was lost: asked and failed at one moment."""
        since = self.terminating_since
        return since is not None and since == self.terminate_failed_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Patience after failed creates."""

    failures: int = 0
    until: datetime | None = None
    reason: str = ""
    message: str = ""
    spec_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """All that must not be forgotten about a preset between two cycles."""

    intents: tuple[Intent, ...] = ()
    vms: Mapping[VmId, VmMemory] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    next_slot: int = 0
    accepted_count: int | None = None
    breaker_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All inputs of one decision."""

    now: datetime
    spec: Spec
    fencing_token: int
    suite_id: str = ""
    vms: tuple[Vm, ...] = ()
    complete: bool = True
    incomplete_reason: str = ""
    probes: Mapping[VmId, Probe] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    wishes: Wishes = field(default_factory=Wishes)
    fleet: Fleet = field(default_factory=Fleet)
    cloud: Cloud = field(default_factory=Cloud)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A VM with what it is for us, and why."""

    vm: Vm
    status: VmStatus
    reason: str
    memory: VmMemory
    is_ready: bool = False


@dataclass(frozen=True, slots=True)
class Create:
    """Make a VM under this intent, for this reason, on this evidence."""

    intent: Intent
    reason: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate:
    """Destroy this VM, for this reason, on this evidence."""

    vm: Vm
    reason: Reason
    evidence: str
    force: bool = False


Step = Create | Terminate


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that is not done, and why not."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What this preset needs next, why not more, and when to look again."""

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    judged: tuple[Judged, ...] = ()
    memory: Memory = field(default_factory=Memory)
    is_settled: bool = True

    @property
    def creates(self) -> tuple[Create, ...]:
        """The steps that make VMs."""
        return tuple(step for step in self.steps if isinstance(step, Create))

    @property
    def terminations(self) -> tuple[Terminate, ...]:
        """The steps that destroy VMs."""
        return tuple(step for step in self.steps if isinstance(step, Terminate))


class Fate(Enum):
    """What became of a step."""

    DONE = auto()
    FAILED = auto()
    UNKNOWN = auto()
    UNTRIED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one step, in the cloud's words where it failed."""

    step: Step
    fate: Fate
    vm_id: VmId | None = None
    reason: str = ""
    message: str = ""
    retry_after: timedelta | None = None
