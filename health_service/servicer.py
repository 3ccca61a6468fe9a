"""health.v1.HealthService: one method an RPC, nothing but translation. `prober` does the work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from health_service import convert
from health_service.domain import Summary
from health_service.prober import Prober
from vmshepherd.health.v1 import health_service_pb2 as pb2
from vmshepherd.health.v1 import health_service_pb2_grpc as pb2_grpc
from vmshepherd_kit import pages

Context = grpc.aio.ServicerContext[Any, Any]


class HealthServicer(pb2_grpc.HealthServiceServicer):
    """The contract, spoken by one prober."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober

    async def Probe(
        self, request: pb2.ProbeRequest, context: Context
    ) -> AsyncIterator[pb2.ProbeResponse]:
        """Results as they come in, then the summary; the probes end when the caller leaves."""
        wanted = convert.to_request(request)
        probing = self._prober.probe(wanted.driver, wanted.options, wanted.targets)
        async with aclosing(probing) as parts:
            async for part in parts:
                if isinstance(part, Summary):
                    yield convert.from_summary(part)
                else:
                    yield convert.from_results(part)

    async def ListChecks(
        self, request: pb2.ListChecksRequest, context: Context
    ) -> pb2.ListChecksResponse:
        """The checks in order of their names."""
        size = pages.clamp(request.page_size, default=1000, maximum=1000)
        after = str(pages.decode(request.page_token).get("after", ""))
        names = [name for name in sorted(self._prober.checks) if name > after]
        page = names[:size]
        return pb2.ListChecksResponse(
            checks=[convert.from_check(name, self._prober.checks[name]) for name in page],
            next_page_token=pages.encode({"after": page[-1]}) if len(names) > size else "",
        )
