"""What a check is, for the service that calls it and for whoever writes one.

A check gets a whole batch and tells each result as it comes, so that it may own its fast path for
thousands of targets: an event loop, a thread, another process. `probing` has what an ordinary one
needs (one coroutine a target); `health_service.testing` has the tests that every check must pass.
Entry points of `GROUP` name the classes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from health_service.domain import Aim, Result
from health_service.lag import Lag
from health_service.pace import Pace
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.settings import Settings

GROUP: Final = "vmshepherd.drivers.health"

Report = Callable[[Result], None]
# Probes every aim once, and reports once for each, in any order, as the results come in. It raises
# nothing on account of an aim; cancelled, it leaves nothing open.
Probe = Callable[[Sequence[Aim], Report], Awaitable[None]]


class Trait(StrEnum):
    """What a check declares about itself."""

    # It talks to the VM: every aim has a vetted address, the options derive from
    # `addresses.AddressOptions`, and the prober's control must pass.
    NETWORK = "network"


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the service lends to its checks; they share one pace, whose limits hold for all."""

    clock: Clock
    pace: Pace
    lag: Lag
    # Where the files lie that options may name; nothing outside is read.
    files: Path


class Check(Protocol):
    """One kind of check; one instance serves all requests, side by side."""

    # What it proves, one sentence.
    summary: ClassVar[str]
    traits: ClassVar[frozenset[Trait]]
    options: ClassVar[type[Settings]]

    def __init__(self, tools: Tools) -> None: ...

    async def prepare(self, options: Any) -> Probe:
        """A probe with these options, which are of the class `options`.

        Raises BadRequest, with violations that name the keys, for what no schema can tell.
        """
        ...

    def control_options(self, port: int) -> Mapping[str, Any] | None:
        """The options that must pass against the prober's own listener, which speaks HTTP/1.1 and
        answers 200; None when the check cannot speak to it: then a connection must do.
        """
        ...

    async def close(self) -> None:
        """Give back whatever is held."""
        ...
