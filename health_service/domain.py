"""What is probed and what is said about it: frozen values, without gRPC and without sockets.

`prober` and the drivers speak in these; `convert` turns them into messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import NewType

TargetId = NewType("TargetId", str)
Address = IPv4Address | IPv6Address


class Verdict(Enum):
    """What a probe means for a VM."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    # The probe says nothing about the VM.
    UNKNOWN = "unknown"


class Reason:
    """The fixed words of our own checks; a driver may add words, in the same form."""

    OK = "OK"
    # Of the VM, or of the network about the VM.
    STATUS = "STATUS"
    BODY = "BODY"
    REFUSED = "REFUSED"
    RESET = "RESET"
    UNREACHABLE = "UNREACHABLE"
    TIMEOUT = "TIMEOUT"
    TLS = "TLS"
    PROTOCOL = "PROTOCOL"
    # Of ourselves.
    LOCAL = "LOCAL"
    LATE = "LATE"
    CONTROL = "CONTROL"
    BUG = "BUG"
    # Of the request: there is nothing that may be probed.
    DNS = "DNS"
    NO_ADDRESS = "NO_ADDRESS"
    FORBIDDEN_ADDRESS = "FORBIDDEN_ADDRESS"


@dataclass(frozen=True, slots=True)
class Target:
    """What the caller wants to be probed: its addresses as they came, best first."""

    target_id: TargetId
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Aim:
    """A target with the one address to probe, vetted; None for a check that needs no network."""

    target_id: TargetId
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What one probe said. `silent`: not one packet came back, so that it may be our network."""

    target_id: TargetId
    verdict: Verdict
    reason: str
    message: str = ""
    latency: timedelta = timedelta(0)
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is to be thought of a whole request; the counts are of the results as they were told."""

    control_passed: bool
    control_message: str
    prober_id: str
    healthy: int
    unhealthy: int
    unknown: int
