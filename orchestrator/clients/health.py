"""The health service: one batch a check, shared by all presets that use the same check.

A verdict is passed on only after the prober's summary; when its control failed, every UNHEALTHY
becomes UNKNOWN here. Called by `observe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

import grpc

from vmshepherd.health.v1 import health_service_pb2 as pb
from vmshepherd.health.v1.health_service_pb2_grpc import HealthServiceStub
from vmshepherd_kit import dial
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import Unavailable

from ..model import Probe, Verdict
from .batch import Batch

DEADLINE = timedelta(seconds=30)
TARGETS_PER_CALL = 5000
# More of one VM are refused, and with them the targets of everybody else.
MOST_ADDRESSES = 100

_VERDICTS = {
    pb.VERDICT_HEALTHY: Verdict.HEALTHY,
    pb.VERDICT_UNHEALTHY: Verdict.UNHEALTHY,
}


@dataclass(frozen=True, slots=True)
class Target:
    """One VM to be probed."""

    vm_id: str
    addresses: tuple[str, ...]


class Health:
    """A client of one health service."""

    def __init__(self, channel: grpc.aio.Channel, *, clock: Clock) -> None:
        self._stub = HealthServiceStub(channel)
        self._clock = clock
        self._batches: dict[bytes, Batch[Sequence[Target], dict[str, Probe]]] = {}

    async def checks(self) -> list[str]:
        """Names of the installed checks."""
        answer = await dial.ask(self._stub.ListChecks, pb.ListChecksRequest())
        return [check.name for check in answer.checks]

    async def probe(self, check: pb.Check, targets: Sequence[Target]) -> dict[str, Probe]:
        """What a check says of targets, by VM id.  BadRequest when its options are wrong."""
        key = check.SerializeToString(deterministic=True)
        if key not in self._batches:
            self._batches[key] = Batch(_Sender(self._stub, check).send, clock=self._clock)
        return await self._batches[key].ask(targets)


class _Sender:
    """One kind of check."""

    def __init__(self, stub: HealthServiceStub, check: pb.Check) -> None:
        self._stub = stub
        self._check = check

    async def send(self, groups: Sequence[Sequence[Target]]) -> Sequence[dict[str, Probe]]:
        # By place: two clouds may give the same id, and two cycles may ask for the same VM.
        places = [(number, target) for number, group in enumerate(groups) for target in group]
        answers: list[dict[str, Probe]] = [{} for _ in groups]
        for at in range(0, len(places), TARGETS_PER_CALL):
            chunk = places[at : at + TARGETS_PER_CALL]
            probes = await self._probe([target for _, target in chunk])
            for place, (number, target) in enumerate(chunk):
                if (probe := probes.get(str(place))) is not None:
                    answers[number][target.vm_id] = probe
        return answers

    async def _probe(self, targets: Sequence[Target]) -> dict[str, Probe]:
        """What is said of each target, by its place among them."""
        request = pb.ProbeRequest(
            check=self._check,
            targets=[
                pb.Target(target_id=str(place), addresses=target.addresses[:MOST_ADDRESSES])
                for place, target in enumerate(targets)
            ],
        )
        results = list[pb.ProbeResult]()
        summary: pb.ProbeSummary | None = None
        async with aclosing(dial.listen(self._stub.Probe, request, deadline=DEADLINE)) as stream:
            async for part in stream:
                results.extend(part.results.results)
                summary = part.summary if part.HasField("summary") else summary
        if summary is None:
            raise Unavailable("the health service broke off before its summary")
        return {result.target_id: _probe_of(result, summary) for result in results}


def _probe_of(result: pb.ProbeResult, summary: pb.ProbeSummary) -> Probe:
    verdict = _VERDICTS.get(result.verdict, Verdict.UNKNOWN)
    if verdict is Verdict.UNHEALTHY and not summary.control_passed:
        return Probe(
            Verdict.UNKNOWN, f"the prober failed its own control: {summary.control_message}"
        )
    return Probe(verdict, result.message or result.reason)
