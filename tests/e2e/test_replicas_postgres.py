"""Two orchestrators and two runtime_services over one PostgreSQL: either of these may be killed or
stand still, and who holds what stays as it is.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import free_ports
from tests.e2e.several import PORTS, RUNTIMES, Several
from tests.e2e.waiting import Stopwatch
from tests.support import postgres
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api

pytestmark = pytest.mark.e2e

# So many that, as names of replicas are drawn by chance, none is without a share.
PRESETS = [f"web-{number:02}" for number in range(24)]
VMS = 3
BOTH = ("orchestrator", "second")


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Several]:
    if (how := postgres.missing()) is not None:
        pytest.skip(how)
    with postgres.running() as server:
        several = Several(tmp_path / "suite", free_ports(PORTS), runtimes=len(RUNTIMES))
        try:
            several.config["runtime"] |= {"driver": "postgres", "options": server.options()}
            # It outlives the five seconds for which one that was found hanging is left alone.
            several.config["orchestrator"]["session"]["ttl"] = "12s"
            for name in PRESETS:
                several.want(name, VMS)
            several.begin(*BOTH)
            yield several
        finally:
            for name, daemon in several.daemons.items():
                print(f"--- {name}\n{daemon.said()[-6000:]}")  # noqa: T201  pytest shows it
            several.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "paused"])
def test_one_of_two_runtime_services_is_enough(several: Several, number: signal.Signals) -> None:
    before, vms = several.held(), several.cloud()
    several.send("runtime", number)
    for preset in PRESETS[:6]:
        several.want(preset, VMS + 1)
    watch = Stopwatch()
    several.until_as_declared()
    watch.tell("from a wish, one runtime_service being away, to the VMs that were wished for")
    # Through both replicas, so that each has a call that would have met the one that is away.
    for replica in BOTH:
        for preset in PRESETS:
            request = api.GetPresetRequest(preset=preset)
            answer = several.replicas[replica].GetPreset(request, timeout=5)
            assert answer.preset.name == preset
    # No session was lost: nobody has changed, and no token either.
    assert several.until_shared(*BOTH) == before
    assert vms.items() <= several.cloud().items()
    assert several.events("", "", "VM_TERMINATING") == []

    if number == signal.SIGKILL:
        several.daemons["runtime"].wait()
        several.run("runtime", "runtime")
    else:
        several.send("runtime", signal.SIGCONT)
    several.send("runtime-2", signal.SIGKILL)
    several.want(PRESETS[0], VMS + 2)
    several.until_as_declared()
    assert several.until_shared(*BOTH) == before
