"""Presets as values: what an operator declared, checked, and what is wrong with the rest.

Everything here is frozen and knows neither files nor gRPC.  A `PresetSpec` is complete: its user
data are rendered, its defaults merged.  None stands for "the reader's default".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

MAX_TEXT_BYTES: Final = 256 * 1024
MAX_USER_DATA_BYTES: Final = 64 * 1024
MAX_COUNT: Final = 10_000
MAX_CHOICES: Final = 10


class Severity(StrEnum):
    """Whether a text can be used all the same."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong: `line` counts from 1, 0 when it cannot be told; `key` is dotted."""

    message: str
    file: str = ""
    line: int = 0
    key: str = ""
    severity: Severity = Severity.ERROR


class ScaleInOrder(StrEnum):
    """Which sound VMs leave first."""

    NEWEST = "newest"
    OLDEST = "oldest"


class OnRemove(StrEnum):
    """What becomes of the VMs of a removed preset."""

    KEEP = "keep"
    DELETE = "delete"


class Replace(StrEnum):
    """What becomes of VMs that were made of another spec."""

    ROLLING = "rolling"
    ON_FAILURE = "on_failure"
    NEVER = "never"


class OnStopped(StrEnum):
    """What a VM is that somebody stopped."""

    PARK = "park"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One network interface."""

    network: str = ""
    subnet: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Where VMs are attached, in order: in one zone, or spread over several."""

    security_groups: tuple[str, ...] = ()
    availability_zone: str = ""
    attachments: tuple[Attachment, ...] = ()
    availability_zones: tuple[str, ...] = ()
    """Two at least, and `availability_zone` is empty; or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How a VM is judged; the options are the health driver's own."""

    driver: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fall: int | None = None
    rise: int | None = None
    min_failing_time: timedelta | None = None
    observe_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits of what may be done to the VMs."""

    max_surge: int | None = None
    max_unavailable: int | None = None
    startup_grace: timedelta | None = None
    boot_timeout: timedelta | None = None
    max_deletions_per_cycle: int | None = None
    shutdown_notice: timedelta | None = None
    breaker_count: int | None = None
    breaker_percent: int | None = None
    scale_in_order: ScaleInOrder | None = None
    on_remove: OnRemove | None = None
    replace: Replace | None = None
    canary: int | None = None
    min_healthy_time: timedelta | None = None
    batch_pause: timedelta | None = None
    reboots: int | None = None
    rebuilds: int | None = None
    keep_failed: int | None = None
    keep_failed_time: timedelta | None = None
    max_lifetime: timedelta | None = None
    suspend_after: int | None = None
    on_stopped: OnStopped | None = None
    removal_grace: timedelta | None = None
    max_deletions_per_window: int | None = None
    deletion_window: timedelta | None = None
    breaker_window: timedelta | None = None
    longest_backoff: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetSpec:
    """What the group shall be."""

    count: int
    provider: str = ""
    flavor: str = ""
    image: str = ""
    network: Network = Network()
    # May hold secrets: left out of every representation, and so of logs and tracebacks.
    user_data: str = field(default="", repr=False)
    meta_tags: Mapping[str, str] = field(default_factory=dict)
    key_name: str = ""
    unmanaged: bool = False
    healthcheck: HealthCheck | None = None
    manage_interval: timedelta | None = None
    manage_expire: timedelta | None = None
    policy: Policy = Policy()
    panel_links: Mapping[str, str] = field(default_factory=dict)
    iaas_options: Mapping[str, Any] = field(default_factory=dict)
    fallback_flavors: tuple[str, ...] = ()
    fallback_images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A preset as it is known now: `spec` is its last good one, None while there never was one."""

    name: str
    spec: PresetSpec | None
    source: str
    file: str
    revision: str = ""
    spec_hash: str = ""
    changed_time: datetime | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A preset that its source, read whole, does not declare any more."""

    name: str
    source: str
    revision: str


Change = Preset | Removed
