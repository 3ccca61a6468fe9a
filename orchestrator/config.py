"""Settings of the orchestrator: where the services are, how long sessions live, when to look."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from vmshepherd_kit.serve import Listen
from vmshepherd_kit.settings import Duration, Settings

SECTION = "orchestrator"
# A mutation with less time than this is not begun: iaas_service would refuse it.
LEAST_TIME = timedelta(seconds=1.5)
# What the runtime service takes.
LONGEST_TTL = timedelta(minutes=10)


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be more than 0")
    return value


def _long_enough(value: timedelta) -> timedelta:
    if value < LEAST_TIME:
        raise ValueError(f"must be {LEAST_TIME.total_seconds():g} s or more")
    return value


def _at_most_a_day(value: timedelta) -> timedelta:
    if value > timedelta(days=1):
        raise ValueError("must not be more than a day")
    return value


Positive = Annotated[Duration, AfterValidator(_positive)]


class Services(Settings):
    """Where the four services are dialled."""

    preset: str = "127.0.0.1:50051"
    runtime: str = "127.0.0.1:50052"
    iaas: tuple[str, ...] = Field(default=("127.0.0.1:50053",), min_length=1)
    health: str = "127.0.0.1:50054"


class Session(Settings):
    """How long a replica owns what it holds.

    A holder stops acting `margin` before its session can end, even when every refresh hangs for as
    long as it may: refresh + 2 * rpc_timeout + margin <= ttl.
    """

    ttl: Positive = timedelta(seconds=20)
    refresh: Positive = timedelta(seconds=5)
    rpc_timeout: Positive = timedelta(seconds=3)
    margin: Positive = timedelta(seconds=4)
    lock_delay: Duration = timedelta(seconds=10)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        needed = self.refresh + 2 * self.rpc_timeout + self.margin
        if needed > self.ttl:
            raise ValueError(
                f"refresh + 2 * rpc_timeout + margin is {needed.total_seconds():g} s "
                f"and must not be more than ttl, {self.ttl.total_seconds():g} s"
            )
        left = self.ttl - self.margin - self.refresh - self.rpc_timeout
        if left < LEAST_TIME:
            raise ValueError(
                f"ttl - margin - refresh - rpc_timeout is {left.total_seconds():g} s: "
                f"too little for a mutation, which needs {LEAST_TIME.total_seconds():g} s"
            )
        if max(self.ttl, self.lock_delay) > LONGEST_TTL:
            raise ValueError("ttl and lock_delay must not be more than 10 minutes")
        return self


class Breaker(Settings):
    """When what one prober says of all presets together is believed no more.

    At least `count` VMs, and at least `percent` of those that it sees, fail at once: nothing is
    destroyed for its health in any preset. What a preset saw of the prober counts for `window`.
    """

    count: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    percent: Annotated[int, Field(ge=1, le=100)] = 20
    window: Annotated[Positive, AfterValidator(_at_most_a_day)] = timedelta(minutes=10)


class Removals(Settings):
    """How many presets may vanish from their sources before a person is asked."""

    percent: Annotated[int, Field(ge=0, le=100)] = 20


class Config(Settings):
    """The section `orchestrator`."""

    listen: Listen = Listen(address="127.0.0.1:50055")
    services: Services = Services()
    session: Session = Session()
    interval: Positive = timedelta(seconds=10)
    """How often a settled preset is looked at, unless it says `manage_interval`."""
    soon: Positive = timedelta(seconds=1)
    """How often a preset is looked at while something is on its way."""
    breaker: Breaker = Breaker()
    removals: Removals = Removals()
    mutation_timeout: Annotated[Duration, AfterValidator(_long_enough)] = timedelta(seconds=30)
    """Longest time for one create or terminate call; never longer than the session surely lasts."""

    def needs_restart_for(self, other: Self) -> list[str]:
        """Keys that differ in the other configuration and are only read at start."""
        return [
            f"{SECTION}.{key}"
            for key in ("listen", "services", "session")
            if getattr(self, key) != getattr(other, key)
        ]
