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
    KEPT = auto()


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
    """Why a VM is replaced or destroyed."""

    DEAD = auto()
    UNHEALTHY = auto()
    BOOT_TIMEOUT = auto()
    SURPLUS = auto()
    TIMED_SHUTDOWN = auto()
    OPERATOR = auto()
    OUTDATED = auto()
    MAX_LIFETIME = auto()
    STOPPED = auto()
    STUDY_OVER = auto()
    PRESET_REMOVED = auto()


class Replace(Enum):
    """What becomes of VMs that were made of another spec than the declared one."""

    ROLLING = auto()
    ON_FAILURE = auto()
    NEVER = auto()


class Method(Enum):
    """How a VM is repaired without replacing it."""

    REBOOT = auto()
    REBUILD = auto()


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
    max_deletions_per_window: int | None = None
    deletion_window: timedelta = timedelta(minutes=10)
    shutdown_notice: timedelta = timedelta(minutes=10)
    max_lifetime: timedelta | None = None
    breaker_count: int = 3
    breaker_percent: int = 34
    breaker_window: timedelta = timedelta(minutes=10)
    longest_backoff: timedelta = timedelta(minutes=10)
    suspend_after: int = 5
    reboots: int = 0
    rebuilds: int = 0
    keep_failed: int = 0
    keep_failed_time: timedelta = timedelta(hours=24)
    replace: Replace = Replace.ON_FAILURE
    canary: int = 1
    min_healthy_time: timedelta = timedelta(seconds=30)
    batch_pause: timedelta = timedelta(0)
    removal_grace: timedelta = timedelta(hours=24)
    oldest_leaves_first: bool = False
    stopped_are_replaced: bool = False
    deleted_on_removal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a group shall be, as far as decisions need it."""

    name: PresetName
    count: int
    spec_hash: str
    managed: bool = True
    # Alternatives, the preferred first; empty where there is nothing to choose.
    images: tuple[str, ...] = ()
    flavors: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
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
    breaker_count: int = 5
    breaker_percent: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """What a provider promises about creates, and what it can do to a VM."""

    idempotent: bool = True
    horizon: timedelta = timedelta(0)
    methods: frozenset[Method] = frozenset()
    has_console: bool = False


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
    protections: frozenset[VmId] = frozenset()
    resumes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A preset that its source does not declare any more. `held_back` says why it must wait.

    `counted` is how long it was waited by clocks that only run; None: as long as the dates say.
    """

    since: datetime
    held_back: str = ""
    counted: timedelta | None = None

    def waited(self, now: datetime) -> timedelta:
        """How much of its grace is over."""
        return now - self.since if self.counted is None else self.counted

    def left(self, grace: timedelta, now: datetime) -> timedelta:
        """How much of its grace is to come; nothing or less once it is over."""
        return grace - self.waited(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What a VM is made of and where, as far as there is a choice; "" is what is declared."""

    image: str = ""
    flavor: str = ""
    zone: str = ""


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
    placement: Placement = Placement()


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
    ready_since: datetime | None = None
    was_proved: bool = False
    reboots: int = 0
    rebuilds: int = 0
    repaired_at: datetime | None = None
    kept_since: datetime | None = None
    first_image: str = ""
    first_flavor: str = ""

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
    held_until: datetime | None = None
    """No create leaves before, which says nothing about the preset."""

    def waits_until(self, now: datetime) -> datetime | None:
        """When creates may be sent again; None when they may be now."""
        times = [each for each in (self.until, self.held_until) if each is not None and now < each]
        return max(times, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Placements that the cloud refused; "" stands for any."""

    placement: Placement
    until: datetime
    reason: str
    message: str = ""
    failures: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A VM that we destroyed."""

    at: datetime
    for_health: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The replacement of all outdated VMs, as far as it came."""

    spec_hash: str
    stopped_at: datetime | None = None
    stop_message: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether no VM that failed early has stopped it."""
        return self.stopped_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """All that must not be forgotten about a preset between two cycles."""

    intents: tuple[Intent, ...] = ()
    vms: Mapping[VmId, VmMemory] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    next_slot: int = 0
    accepted_count: int | None = None
    breaker_since: datetime | None = None
    shortages: tuple[Shortage, ...] = ()
    deletions: tuple[Deletion, ...] = ()
    rollout: Rollout | None = None
    suspended_since: datetime | None = None
    resumes_seen: int = 0


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
    removal: Removal | None = None
    # The provider that is declared now, where the VMs still run at the former one.
    moves_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A VM with what it is for us, and why."""

    vm: Vm
    status: VmStatus
    reason: str
    memory: VmMemory
    is_ready: bool = False
    is_outdated: bool = False
    leaves_for: Reason | None = None

    @property
    def born(self) -> datetime:
        """When it was made by the cloud's word, or else when we first saw it."""
        return self.vm.created or self.memory.first_seen


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Restart this VM or make it anew in its place, on this evidence."""

    vm: Vm
    method: Method
    evidence: str

    @property
    def reason(self) -> Reason:
        """Only what its check condemned is repaired."""
        return Reason.UNHEALTHY


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Keep this failed VM for study instead of destroying it for this reason."""

    vm: Vm
    reason: Reason
    evidence: str


Step = Create | Terminate | Repair | Keep


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

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """The steps that repair VMs in their places."""
        return tuple(step for step in self.steps if isinstance(step, Repair))

    @property
    def keeps(self) -> tuple[Keep, ...]:
        """The steps that only set VMs aside."""
        return tuple(step for step in self.steps if isinstance(step, Keep))


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
