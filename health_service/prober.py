"""One Probe request from beginning to end: choose addresses, run the control, probe, sum up.

The servicer calls it with domain values. It never lets a driver's slip cost a target its result,
and never lets a verdict pass as UNHEALTHY once it knows that it could not see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from health_service.addresses import AddressOptions, Rules, aim
from health_service.batch import Batch
from health_service.control import Control
from health_service.domain import Aim, Reason, Result, Summary, Target, Verdict
from health_service.lag import Lag
from health_service.port import Check, Trait
from health_service.silence import Silence
from vmshepherd_kit import settings
from vmshepherd_kit.errors import NotFound, Throttled

_AGAIN: Final = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one prober takes on, and what it takes for its own blindness."""

    requests: int
    # With no control target named, so many targets and no packet from any of them is blindness,
    # be they asked in one batch or in several; 0: never.
    suspect_silence: int


class Prober:
    """Probes batches with the checks that it was given."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        control: Control,
        rules: Rules,
        limits: Limits,
        lag: Lag,
        prober_id: str,
    ) -> None:
        self.checks = checks
        self._control = control
        self._rules = rules
        self._limits = limits
        self._lag = lag
        self._prober_id = prober_id
        self._running = 0
        self._silence = Silence()

    async def probe(
        self, driver: str, raw_options: Mapping[str, Any], targets: Sequence[Target]
    ) -> AsyncGenerator[Sequence[Result] | Summary, None]:
        """Results in chunks as they come in, then one summary; nothing is probed before the
        options are found good. Raises NotFound, BadRequest, Throttled.
        """
        check = self._check(driver)
        options = settings.parse(raw_options, check.options, where="check.options")
        with self._admitted(), self._lag.watched():
            probe = await check.prepare(options)
            aims, settled = self._aims(check, options, targets)
            batch = Batch(probe, aims, settled)
            try:
                async with aclosing(self._parts(driver, batch)) as parts:
                    async for part in parts:
                        yield part
            finally:
                await batch.end()

    async def _parts(
        self, driver: str, batch: Batch
    ) -> AsyncGenerator[Sequence[Result] | Summary, None]:
        failed = await self._why_failed(driver)
        counts: Counter[Verdict] = Counter()
        batch.begin()
        while chunk := await batch.chunk():
            if batch.is_over and not failed:
                failed = await self._why_failed(driver) or self._why_blind(batch)
                self._silence.note(batch)
            if failed:
                chunk = [_void(result, failed) for result in chunk]
            counts.update(result.verdict for result in chunk)
            yield chunk
        yield Summary(
            control_passed=not failed,
            control_message=failed,
            prober_id=self._prober_id,
            healthy=counts[Verdict.HEALTHY],
            unhealthy=counts[Verdict.UNHEALTHY],
            unknown=counts[Verdict.UNKNOWN],
        )

    def _check(self, driver: str) -> Check:
        if driver in self.checks:
            return self.checks[driver]
        there = ", ".join(sorted(self.checks)) or "none"
        raise NotFound(
            f"there is no check {driver[:64]!r}; installed: {there}", reason="CHECK_NOT_FOUND"
        )

    def _aims(
        self, check: Check, options: settings.Settings, targets: Sequence[Target]
    ) -> tuple[list[Aim], list[Result]]:
        """What is to be probed, and what is known to be unknown without probing."""
        if Trait.NETWORK not in check.traits:
            return [Aim(target.target_id) for target in targets], []
        choice = options if isinstance(options, AddressOptions) else AddressOptions()
        chosen = [aim(target, choice, self._rules) for target in targets]
        return (
            [one for one in chosen if isinstance(one, Aim)],
            [one for one in chosen if isinstance(one, Result)],
        )

    async def _why_failed(self, driver: str) -> str:
        if Trait.NETWORK not in self.checks[driver].traits:
            return ""
        return await self._control.why_failed(driver)

    def _why_blind(self, batch: Batch) -> str:
        limit = self._limits.suspect_silence
        silent = self._silence.breadth(batch) if batch.silent else 0
        if self._control.proves_network or not limit or silent < limit or batch.heard:
            return ""
        return (
            f"not one packet came from any of {silent} targets: name a control target in the "
            "VMs' network to tell their fault from the prober's"
        )

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._running >= self._limits.requests:
            raise Throttled(
                f"{self._running} probe requests are under way, which is the limit",
                reason="TOO_MANY_PROBES",
                retry_after=_AGAIN,
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


def _void(result: Result, why: str) -> Result:
    if result.verdict is not Verdict.UNHEALTHY:
        return result
    message = f"{result.message}; void, for the control failed: {why}"
    return replace(result, verdict=Verdict.UNKNOWN, reason=Reason.CONTROL, message=message)
