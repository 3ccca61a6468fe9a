"""The services inside the VMs as a prober sees them: the truth, unless the prober is blind.

Stands in place of a driver of health_service; the prober, its control and its rules are real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from health_service.addresses import AddressOptions
from health_service.domain import Aim, Reason, Result, Verdict
from health_service.port import Probe, Report, Trait
from iaas_service.domain import VmState
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.settings import Settings

from .cloud import Body, Truth

LATENCY = timedelta(milliseconds=15)
PATIENCE = timedelta(seconds=1)


@dataclass
class Sight:
    """What the prober can see at present."""

    is_cut_off: bool = False
    """Nothing beyond the prober's own machine answers: every probe falls silent."""
    refuses_all: bool = False
    refused_since: float = -1e9
    """When the last such lie began."""
    refused_until: float = -1e9
    """When the last such lie ended."""
    """Something between answers in the VMs' place: all probes fail loudly, none is silent."""


class SimCheck:
    """A check that looks at the truth."""

    summary: ClassVar[str] = "What is true of the VM."
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.NETWORK})
    options: ClassVar[type[Settings]] = AddressOptions

    def __init__(self, truth: Truth, sight: Sight, clock: Clock) -> None:
        self._truth = truth
        self._sight = sight
        self._clock = clock

    async def prepare(self, options: Any) -> Probe:
        """Every aim at once."""

        async def probe(aims: Sequence[Aim], report: Report) -> None:
            silent = self._sight.is_cut_off
            await self._clock.sleep(PATIENCE if silent else LATENCY)
            by_number = {_number(aim): aim for aim in aims}
            bodies = {b.number: b for b in self._truth.bodies.values() if b.number in by_number}
            for number, aim in by_number.items():
                report(self._result(aim, bodies.get(number)))

        return probe

    def control_options(self, port: int) -> Mapping[str, Any] | None:
        """It speaks to VMs alone."""
        return None

    async def close(self) -> None:
        """Nothing is held."""

    def _result(self, aim: Aim, body: Body | None) -> Result:
        if self._sight.is_cut_off:
            return _failed(aim, Reason.TIMEOUT, silent=True)
        if self._sight.refuses_all:
            return _failed(aim, Reason.REFUSED, silent=False)
        if body is None or not body.is_alive or body.state is not VmState.RUNNING:
            return _failed(aim, Reason.TIMEOUT, silent=True)
        if body.is_sick or self._truth.kernel.now < body.warm_from:
            return _failed(aim, Reason.STATUS, silent=False)
        return Result(aim.target_id, Verdict.HEALTHY, Reason.OK, "200")


class SimControl:
    """`health_service.control.Control`: whether the prober notices that it is blind."""

    def __init__(self, sight: Sight, *, proves_network: bool) -> None:
        self._sight = sight
        self.proves_network = proves_network

    async def why_failed(self, driver: str) -> str:
        """Why the control fails, or ""."""
        if self._sight.is_cut_off and self.proves_network:
            return "no control target answers"
        return ""


def _number(aim: Aim) -> int:
    """Which VM has this address: the inverse of what the cloud gave."""
    _, _, high, low = str(aim.address).split(".")
    return int(high) * 250 + int(low) - 1


def _failed(aim: Aim, reason: str, *, silent: bool) -> Result:
    return Result(aim.target_id, Verdict.UNHEALTHY, reason, reason.lower(), silent=silent)
