"""What iaas_service speaks of: VMs, orders for them, reasons to destroy them.

Frozen values between servicer and drivers; no gRPC, no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Any, NewType

VmId = NewType("VmId", str)


class VmState(Enum):
    """What a VM is doing; the contract explains each."""

    PENDING = auto()
    RUNNING = auto()
    STOPPED = auto()
    TRANSITIONING = auto()
    DELETING = auto()
    TERMINATED = auto()
    ERROR = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """Written into a VM's metadata by its create call: only what bears it is ours."""

    suite_id: str
    preset: str
    request_id: str
    fencing_token: int
    spec_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """One address of a VM, without brackets."""

    ip: str
    network: str = ""
    floating: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Vm:
    """A VM as its cloud reports it; `metadata` are the cloud's own, the marker's keys included."""

    vm_id: VmId
    name: str
    state: VmState
    create_time: datetime
    metadata: Mapping[str, str]
    cloud_state: str = ""
    fault: str = ""
    addresses: tuple[Address, ...] = ()
    image: str = ""
    flavor: str = ""
    zone: str = ""
    host: str = ""
    key_name: str = ""
    # The cloud itself refuses to delete it.
    locked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """One reading of a cloud; not complete means that nothing follows from absence."""

    vms: Sequence[Vm]
    complete: bool = True
    incomplete_reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attachment:
    """One interface of a VM to be made."""

    network: str = ""
    subnet: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """How a VM shall be made; user data may hold secrets and are never shown."""

    flavor: str = ""
    image: str = ""
    security_groups: tuple[str, ...] = ()
    availability_zone: str = ""
    networks: tuple[Attachment, ...] = ()
    user_data: str = field(default="", repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    key_name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One VM to be made: `marker.request_id` is the same for every attempt at it."""

    name: str
    spec: Spec
    marker: Marker

    def is_same_vm_as(self, other: Order) -> bool:
        """Whether both describe one VM; its name and the token of whoever asks may differ."""
        return (self.marker.preset, self.spec) == (other.marker.preset, other.spec)


class Reason(Enum):
    """Why a VM is touched; the contract explains each."""

    DEAD = auto()
    UNHEALTHY = auto()
    BOOT_TIMEOUT = auto()
    SURPLUS = auto()
    TIMED_SHUTDOWN = auto()
    OUTDATED = auto()
    PRESET_REMOVED = auto()
    OPERATOR = auto()
    MAX_LIFETIME = auto()
    STOPPED = auto()
    STUDY_OVER = auto()


class Deed(Enum):
    """What is done to a VM that exists, from the worst to the mildest."""

    TERMINATE = auto()
    REBUILD = auto()
    """Its disk is destroyed."""
    REBOOT = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """A VM to be touched, with all that the gates need to know; None and 0 are untold."""

    vm_id: VmId
    preset: str
    fencing_token: int
    create_time: datetime | None
    reason: Reason | None
    evidence: str
    force: bool = False

    @property
    def is_forced(self) -> bool:
        """Only a person may force."""
        return self.force and self.reason is Reason.OPERATOR


class CatalogKind(Enum):
    """Kinds of things that a provider offers, in the order in which they are listed."""

    IMAGE = 1
    FLAVOR = 2
    ZONE = 3
    NETWORK = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogEntry:
    """One thing that a provider offers."""

    kind: CatalogKind
    id: str
    name: str
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """One limit of a provider; None is no limit."""

    resource: str
    limit: int | None
    used: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """What a provider offers, and how much of it."""

    entries: Sequence[CatalogEntry] = ()
    quotas: Sequence[Quota] = ()


class CheckStatus(Enum):
    """What came of a check; the contract explains each."""

    OK = auto()
    WRONG = auto()
    UNCHECKED = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was checked of a provider; `way_out` says what a person can do."""

    name: str
    status: CheckStatus
    message: str
    way_out: str = ""
    # Nothing else can be checked while it is wrong.
    bars: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """A VM that changed, as it is now."""

    vm: Vm


@dataclass(frozen=True, kw_only=True, slots=True)
class Gone:
    """A VM that is gone, as it was last seen."""

    vm: Vm


Change = Changed | Gone
