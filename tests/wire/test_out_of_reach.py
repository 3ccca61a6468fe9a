"""What is said when a service cannot be reached: who, where and why, in one sentence."""

from __future__ import annotations

import re
import socket

import pytest

from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, settings
from vmshepherd_kit.errors import Unavailable


async def test_a_service_that_is_not_there_is_named_with_its_address() -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody answers there, and nobody else can begin to.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with dial.channel(f"127.0.0.1:{port}", deadline=settings.duration("20s")) as channel:
            stub = RuntimeServiceStub(channel)
            with pytest.raises(Unavailable) as caught:
                await dial.ask(stub.ListSessions, pb.ListSessionsRequest())
    said = caught.value.message
    assert re.fullmatch(
        rf"RuntimeService is out of reach at 127\.0\.0\.1:{port}: .*[Cc]onnection refused.*", said
    )
