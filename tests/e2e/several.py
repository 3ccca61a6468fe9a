"""A suite of several orchestrators, over one runtime_service or two, with VMs of a simulated cloud.

Each of its replicas is a process with a file and a port of its own. Who holds what is asked of the
store itself, and which VMs there are of the cloud's own service.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import yaml

from orchestrator.homes import Member, home
from orchestrator.model import PresetName
from orchestrator.replicas import is_replica, share_of
from tests.e2e.daemon import VMSHEPHERD, Daemon
from tests.e2e.suite import Suite
from tests.e2e.waiting import until
from vmshepherd.iaas.v1 import iaas_service_pb2 as iaas
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd.iaas.v1.vm_pb2 import Vm
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase, PresetView
from vmshepherd.runtime.v1 import runtime_service_pb2 as runtime
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub

REPLICAS = ("orchestrator", "second", "third")
RUNTIMES = ("runtime", "runtime-2")
PORTS = 6 + len(REPLICAS) + len(RUNTIMES) - 2

_PREFIX = "preset/"
_RECONNECT = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class Several(Suite):
    """Up to three replicas; `close` leaves nothing of it running."""

    def __init__(self, folder: Path, ports: Sequence[int], *, runtimes: int = 1) -> None:
        super().__init__(folder, ports[:6])
        self.ports |= dict(zip((*REPLICAS[1:], *RUNTIMES[1:]), ports[6:], strict=True))
        self._runtimes = RUNTIMES[:runtimes]
        channels = {name: self._dialled(name) for name in (*REPLICAS, *self._runtimes, "iaas")}
        self._channels = list(channels.values())
        self.replicas: dict[str, Any] = {
            name: OrchestratorServiceStub(channels[name])  # type: ignore[arg-type]
            for name in REPLICAS
        }
        self._stores: dict[str, Any] = {
            name: RuntimeServiceStub(channels[name])  # type: ignore[arg-type]
            for name in self._runtimes
        }
        self._cloud: Any = IaasServiceStub(channels["iaas"])  # type: ignore[arg-type]
        self._counts: dict[str, int] = {}
        addresses = ",".join(map(self.address, self._runtimes))
        services = self.config["orchestrator"]["services"] | {"runtime": f"ipv4:{addresses}"}
        self.config["orchestrator"]["services"] = services
        self.config["iaas"]["providers"] = {"sim": {"driver": "simulated"}}

    # Files and processes

    def want(self, name: str, count: int) -> None:
        """Declare a preset of VMs that are always well."""
        self.declare(name, count, healthcheck={"driver": "dummy"})
        self._counts[name] = count

    def begin(self, *replicas: str) -> None:
        """Run everything that is needed, and these replicas, until all is as declared."""
        self.write_config()
        for service in ("preset", "iaas", "health"):
            self.serve(service)
        for name in self._runtimes:
            self.run(name, "runtime")
        self.run_replicas(*replicas)
        self.until_shared(*replicas)

    def run(self, name: str, service: str) -> Daemon:
        """Run one of several processes of a service, at an address of its own."""
        section = {**self.config[service], "listen": {"address": self.address(name)}}
        file = self.folder / f"{name}.own.yaml"
        file.write_text(yaml.safe_dump({**self.config, service: section}))
        return self._run(name, [VMSHEPHERD, "serve", service, "-c", str(file)])

    def run_replicas(self, *names: str) -> None:
        """Run these replicas, those of them that do not run."""
        for name in names:
            if name not in self.daemons or not self.daemons[name].is_alive:
                self.run(name, "orchestrator")

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal, without waiting for what comes of it."""
        os.kill(self.daemons[name].pid, number)

    def close(self) -> None:
        """Leave nothing running."""
        for channel in self._channels:
            channel.close()
        super().close()

    # What the store says

    def held(self) -> dict[str, dict[str, int]]:
        """Presets and their tokens by the replica whose process holds them; "" holds the rest."""
        owners = {each.owner: self._name_of(each) for each in self._sessions()}
        found: dict[str, dict[str, int]] = {}
        for lock in self._locks():
            if lock.name.startswith(_PREFIX):
                holder = found.setdefault(owners.get(lock.owner, ""), {})
                holder[lock.name.removeprefix(_PREFIX)] = lock.fencing_token
        return found

    def tokens(self) -> dict[str, int]:
        """The newest token of every preset, whoever has it."""
        return {preset: token for each in self.held().values() for preset, token in each.items()}

    def until_shared(self, *replicas: str, seconds: float = 60) -> dict[str, dict[str, int]]:
        """Wait until exactly these replicas hold what falls to each, and all of it is steady."""

        def is_shared() -> dict[str, dict[str, int]]:
            held = self.held()
            is_so = set(held) == set(replicas) and held == self._due()
            return held if is_so and self._is_steady(replicas) else {}

        return until(is_shared, f"{replicas} share all presets", seconds=seconds)

    def until_held(self, *replicas: str, seconds: float = 60) -> dict[str, dict[str, int]]:
        """Wait until these replicas hold all presets, steady or not."""

        def is_held() -> dict[str, dict[str, int]]:
            held = {name: each for name, each in self.held().items() if name in replicas}
            return held if {p for each in held.values() for p in each} == set(self._counts) else {}

        return until(is_held, f"{replicas} hold all presets", seconds=seconds)

    # What the cloud says

    def cloud(self) -> dict[str, Vm]:
        """All VMs of the suite, by ids."""
        request = iaas.ListVmsRequest(provider="sim", page_size=2000)
        answer = self._cloud.ListVms(request, timeout=10)
        assert answer.complete
        return {vm.vm_id: vm for vm in answer.vms}

    def is_as_declared(self) -> bool:
        """Whether exactly the declared VMs are there."""
        return Counter(vm.marker.preset for vm in self.cloud().values()) == self._counts

    def until_as_declared(self) -> dict[str, Vm]:
        """Wait for that; the VMs."""
        until(self.is_as_declared, "the cloud has exactly the declared VMs")
        return self.cloud()

    # How it is done

    def _due(self) -> dict[str, dict[str, int]]:
        """Presets and their tokens by the replica that they fall to."""
        sessions = [each for each in self._sessions() if is_replica(each)]
        names = {each.owner: self._name_of(each) for each in sessions}
        members = [Member(each.owner, share_of(each)) for each in sessions]
        tokens, found = self.tokens(), dict[str, dict[str, int]]()
        for preset in self._counts:
            name = names.get(home(PresetName(preset), members), "")
            found.setdefault(name, {})[preset] = tokens.get(preset, 0)
        return found

    def _is_steady(self, replicas: Sequence[str]) -> bool:
        views: Sequence[PresetView] = (
            self.replicas[replicas[0]]
            .ListPresets(api.ListPresetsRequest(page_size=1000), timeout=10)
            .presets
        )
        steady = PresetPhase.PRESET_PHASE_STEADY
        return {view.name: view.vms_by_status["RUNNING"] for view in views} == self._counts and all(
            view.phase == steady for view in views
        )

    def _name_of(self, session: runtime.Session) -> str:
        pid = session.labels.get("pid")
        names = [name for name in REPLICAS if name in self.daemons]
        return next((n for n in names if str(self.daemons[n].pid) == pid), "")

    def _sessions(self) -> Sequence[runtime.Session]:
        request = runtime.ListSessionsRequest(page_size=1000)
        found: Sequence[runtime.Session] = self._asked(
            lambda store: store.ListSessions(request, timeout=5)
        ).sessions
        return found

    def _locks(self) -> Sequence[runtime.Lock]:
        request = runtime.ListLocksRequest(page_size=1000)
        found: Sequence[runtime.Lock] = self._asked(
            lambda store: store.ListLocks(request, timeout=5)
        ).locks
        return found

    def _asked(self, ask: Callable[[Any], Any]) -> Any:
        """The answer of the first runtime_service that gives one; who gives none is asked last."""
        for name, stub in list(self._stores.items())[:-1]:
            with suppress(grpc.RpcError):
                return ask(stub)
            self._stores[name] = self._stores.pop(name)
        return ask(next(iter(self._stores.values())))

    def _dialled(self, name: str) -> grpc.Channel:
        return grpc.insecure_channel(self.address(name), options=_RECONNECT)
