"""The section `health` of the configuration file, parsed once, whole. Every key has a default."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Final

from pydantic import Field

from health_service.options import Port
from vmshepherd_kit.serve import Listen
from vmshepherd_kit.settings import Settings

SECTION: Final = "health"

Positive = Annotated[int, Field(ge=1, le=1_000_000)]


class ControlTarget(Settings):
    """A place that accepts connections whenever the prober's network works."""

    address: IPv4Address | IPv6Address
    port: Port


class Config(Settings):
    """How this prober listens, how much it does at once, and where it may probe."""

    listen: Listen = Listen(address="127.0.0.1:50054")
    # Probe requests at once; more are told to come back.
    requests: Positive = 64
    # Connections at once, over all requests; lowered to what the open-file limit allows.
    concurrency: Positive = 500
    starts_per_second: Positive = 5000
    # Probe only addresses in these networks; none named: all but those that are always refused.
    allowed_networks: list[IPv4Network | IPv6Network] = []
    # One of them that accepts a connection proves the way to the VMs.
    control: Annotated[list[ControlTarget], Field(max_length=16)] = []
    # With no `control`: so many targets, and not one packet from any, is taken for our own fault.
    # 0: never.
    suspect_silence: Annotated[int, Field(ge=0)] = 3
