"""The suite over a real OpenStack, for bench/openstack.py: in one process, or a process a service.

Its settings are those of production but where a show says otherwise.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import grpc

from bench.openstack_stage import SUITE, Seen, Stage
from tests.e2e.several import PORTS, REPLICAS, Several
from tests.e2e.waiting import until
from tests.support.postgres import free_port
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase

PROVIDER: Final = "openstack"
# The cloud has three processes for its API, on the machine of everybody else.
_PARALLEL_CALLS: Final = 6
_STEADY: Final = PresetPhase.PRESET_PHASE_STEADY
# What every preset of a show is made of.
MADE_OF: Final = {
    "flavor": "small",
    "image": "debian",
    "network": {"networks": "private"},
    "healthcheck": {"driver": "dummy"},
}


class Shepherd(Several):
    """A suite whose VMs are servers of the stage's project."""

    def __init__(
        self,
        stage: Stage,
        *,
        options: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> None:
        """`options` are the driver's, `policy` is that of every preset."""
        super().__init__(stage.folder / "suite", [free_port() for _ in range(PORTS)])
        self.stage = stage
        self.counts: dict[str, int] = {}
        driver = {
            "driver": PROVIDER,
            "options": stage.options(**(options or {})),
            "parallel_calls": _PARALLEL_CALLS,
        }
        # Nobody shall wait for the budget of an hour: what is destroyed here is asked for.
        self.configure("iaas", providers={PROVIDER: driver}, limits={"terminations": 10_000})
        self.configure("preset", defaults={"policy": dict(policy or {})})
        for key in ("interval", "soon", "session"):
            del self.config["orchestrator"][key]
        self.config["suite_id"] = SUITE
        self.write_config()

    def want(self, name: str, count: int) -> None:
        """Declare a preset, or change its count."""
        self.counts[name] = count
        self.declare(name, count, **MADE_OF)

    def begin(self, *replicas: str) -> None:
        """Run everything that is needed, and these replicas; it begins to work."""
        for service in ("preset", "iaas", "health"):
            self.serve(service)
        self.run("runtime", "runtime")
        self.run_replicas(*replicas)

    def start_again(self, name: str) -> None:
        """Run a process that has ended, as a supervisor would."""
        if name in REPLICAS:
            self.run_replicas(name)
        elif name == "runtime":
            self.run(name, name)
        else:
            self.serve(name)

    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [daemon.pid for daemon in self.daemons.values() if daemon.is_alive]

    def approve(self, *names: str) -> None:
        """Let the declared counts hold, however much they differ from the former ones."""
        request = api.ReconcilePresetRequest(presets=names, approve_count=True, actor="bench")
        self.api.ReconcilePreset(request, timeout=20)

    def unsettled(self) -> list[str]:
        """What is not as declared, by the bare API and by what the suite says of itself."""
        return [*not_as_declared(self.stage.servers(), self.counts), *self._not_steady()]

    def settle(self, seconds: float) -> float:
        """Wait until everything is as declared; how long it took.  AssertionError: it is not."""
        begun = time.monotonic()
        with suppress(AssertionError):
            until(lambda: not self.unsettled(), "all is as declared", seconds=seconds, pause=0.5)
            return time.monotonic() - begun
        raise AssertionError("; ".join(self.unsettled()[:10]) or "it settled too late")

    def settle_approved(self, seconds: float) -> None:
        """The same, where a person approves of whatever waits for that: counts that are zero, or
        differ by more than half.
        """
        until(self._settled_or_approved, "all is as declared", seconds=seconds, pause=1.0)

    def _settled_or_approved(self) -> bool:
        waits = self.unsettled()
        if any("approve" in each for each in waits):
            with suppress(grpc.RpcError):
                self.approve(*self.counts)
        return not waits

    def _not_steady(self) -> list[str]:
        try:
            views = {view.name: view for view in self.list_presets().presets}
        except grpc.RpcError as e:
            return [f"the suite cannot be asked: {e}"]
        wrong = [f"{name}: not listed" for name in self.counts.keys() - views.keys()]
        return wrong + [
            f"{name}: {dict(view.vms_by_status)}, {'; '.join(c.message for c in view.conditions)}"
            for name, view in views.items()
            if name in self.counts
            and (view.phase != _STEADY or view.vms_by_status["RUNNING"] != self.counts[name])
        ]


def not_as_declared(servers: Sequence[Seen], counts: Mapping[str, int]) -> list[str]:
    """Presets with another number of servers than declared, or with some that are not ACTIVE."""
    found = Counter(each.preset for each in servers if each.preset)
    well = Counter(each.preset for each in servers if each.status == "ACTIVE" and not each.is_going)
    return [
        f"{name}: {found[name]} servers, {well[name]} of them ACTIVE, {counts.get(name, 0)} wanted"
        for name in sorted(found.keys() | counts.keys())
        if {found[name], well[name]} != {counts.get(name, 0)}
    ]


def repeated(servers: Iterable[Seen]) -> dict[str, list[str]]:
    """Intents that have more than one live server."""
    found: dict[str, list[str]] = {}
    for each in servers:
        if each.request_id and not each.is_going:
            found.setdefault(each.request_id, []).append(each.server_id)
    return {request: ids for request, ids in found.items() if len(ids) > 1}
