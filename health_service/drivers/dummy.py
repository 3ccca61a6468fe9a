"""Check `dummy`: says what it was told to say, without looking. For tests, demonstrations, and
presets whose VMs have nothing to ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from health_service.domain import Aim, Reason, Result, Verdict
from health_service.port import Probe, Report, Tools, Trait
from vmshepherd_kit.settings import Settings


class DummyOptions(Settings):
    """Options of the check `dummy`."""

    verdict: Literal["healthy", "unhealthy", "unknown"] = Field(
        default="healthy", description="What every probe says."
    )


class DummyCheck:
    """The same verdict for every target."""

    summary: ClassVar[str] = "Nothing: every probe gives the configured verdict."
    traits: ClassVar[frozenset[Trait]] = frozenset()
    options: ClassVar[type[Settings]] = DummyOptions

    def __init__(self, tools: Tools) -> None: ...

    async def prepare(self, options: DummyOptions) -> Probe:
        """A probe that gives that verdict."""
        verdict = Verdict(options.verdict)
        reason = Reason.OK if verdict is Verdict.HEALTHY else "DUMMY"

        async def probe(aims: Sequence[Aim], report: Report) -> None:
            for aim in aims:
                report(Result(aim.target_id, verdict, reason, "as configured"))

        return probe

    def control_options(self, port: int) -> Mapping[str, Any] | None:
        """It speaks to nobody."""
        return None

    async def close(self) -> None:
        """Nothing is held."""
