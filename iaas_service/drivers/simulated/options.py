"""Settings of the `simulated` driver: how fast, how big and how unreliable its cloud is."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt

from vmshepherd_kit.errors import (
    NoCapacity,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    ShepherdError,
    Throttled,
    Unavailable,
)
from vmshepherd_kit.settings import Duration, Settings

Probability = Annotated[float, Field(ge=0, le=1)]


class Failure(StrEnum):
    """How a call fails."""

    UNAVAILABLE = "UNAVAILABLE"
    """Refused: surely not done."""
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    """No answer, or one that proves nothing."""
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    NO_CAPACITY = "NO_CAPACITY"
    THROTTLED = "THROTTLED"
    NOT_FOUND = "NOT_FOUND"
    """No such image, flavor or network."""

    def error(self) -> ShepherdError:
        """What the driver raises."""
        sentence = f"simulated failure: {self.value}"
        if self is Failure.THROTTLED:
            return Throttled(sentence, retry_after=timedelta(seconds=1))
        return _ERRORS[self](sentence)


_ERRORS: dict[Failure, type[ShepherdError]] = {
    Failure.UNAVAILABLE: Unavailable,
    Failure.OUTCOME_UNKNOWN: OutcomeUnknown,
    Failure.QUOTA_EXCEEDED: QuotaExceeded,
    Failure.NO_CAPACITY: NoCapacity,
    Failure.NOT_FOUND: NotFound,
}


class CreateError(Settings):
    """Creates that fail."""

    probability: Probability
    reason: Failure = Failure.UNAVAILABLE
    # The VM is made all the same: what a gateway that gives up too early does.
    after_creating: bool = False


class CallError(Settings):
    """Calls that fail."""

    probability: Probability
    reason: Failure = Failure.UNAVAILABLE


class Failures(Settings):
    """What goes wrong by chance."""

    create_error: CreateError | None = None
    terminate_error: CallError | None = None
    list_error: CallError | None = None
    # Listings that miss the VMs of one cell and say so.
    list_incomplete: Probability = 0


class Lack(StrEnum):
    """What a cloud cannot do."""

    EVENTS = "events"
    REBOOT = "reboot"
    REBUILD = "rebuild"
    CONSOLE = "console"


def _loopback(value: object) -> IPv4Network:
    try:
        network = ip_network(str(value))
    except ValueError as e:
        raise ValueError("must be an address or a network, as 127.0.0.1 or 127.64.0.0/10") from e
    if not isinstance(network, IPv4Network) or not network.is_loopback:
        # Whoever probes a simulated VM must never reach a real machine.
        raise ValueError("must lie within 127.0.0.0/8")
    return network


class SimulatedOptions(Settings):
    """All of them have defaults: a cloud that answers at once and never fails."""

    latency: Duration = timedelta(0)
    """Time that each call takes; a listing takes it once a page."""
    page_size: PositiveInt = 1000
    """VMs on a page of a listing."""
    boot_time: Duration = timedelta(0)
    """Time from create to RUNNING."""
    terminate_time: Duration = timedelta(0)
    """Time from terminate to being gone."""
    visibility_delay: Duration = timedelta(0)
    """Listings miss VMs younger than this; reading by id sees them."""
    quota: NonNegativeInt | None = None
    """Most VMs."""
    idempotent: bool = True
    """Whether a create repeated with the same request id makes no second VM."""
    lacks: frozenset[Lack] = frozenset()
    """What it cannot do."""
    horizon: Duration = timedelta(seconds=120)
    """What the driver tells as its unknown-outcome horizon when creates are not idempotent."""
    address: Annotated[IPv4Network, BeforeValidator(_loopback)] = IPv4Network("127.64.0.0/10")
    """Where addresses of VMs come from, one after the other; one address is shared by all."""
    failures: Failures = Failures()
