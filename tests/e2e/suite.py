"""A suite of a test's own: a folder, ports, presets, and the real processes that run it.

A test starts it with `up` or `serve`, breaks something, and looks through the admin API and the
command, as users do, and past them, at processes and files.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import yaml

from tests.e2e import linux
from tests.e2e.daemon import VMSHEPHERD, Daemon
from tests.e2e.waiting import until
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase, PresetView, VmStatus, VmView
from vmshepherd.runtime.v1.event_pb2 import Event, EventFilter

SERVICES = ("runtime", "preset", "iaas", "health", "orchestrator")

# Quick, so that tests are; the protections are those of every suite.
HTTP_CHECK = {
    "driver": "http",
    "path": "/",
    "conn_timeout": "2s",
    "read_timeout": "2s",
    "fall": 3,
    "rise": 1,
    "min_failing_time": "1s",
}
_RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class Suite:
    """Files and processes of one suite; `close` leaves nothing of it running."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.folder = folder
        self.ports = dict(zip((*SERVICES, "vms"), ports, strict=True))
        self.file = folder / "vmshepherd.yaml"
        self.presets = folder / "presets.d"
        self.state = folder / "state"
        self.vms_folder = self.state / "vms"
        self.daemons: dict[str, Daemon] = {}
        self.config = self._config()
        self.presets.mkdir(parents=True)
        self._channel = grpc.insecure_channel(self.address("orchestrator"), options=_RECONNECT)
        # The blocking stubs, which other languages see; their types are those of asyncio.
        self.api: Any = OrchestratorServiceStub(self._channel)  # type: ignore[arg-type]

    # Files

    def address(self, service: str) -> str:
        """Where a service listens."""
        return f"127.0.0.1:{self.ports[service]}"

    def configure(self, section: str, **keys: Any) -> None:
        """Change keys of a section, and write the file."""
        self.config[section] = {**self.config[section], **keys}
        self.write_config()

    def write_config(self) -> None:
        """Write the file as an editor does: whole, in one go."""
        _write(self.file, yaml.safe_dump(self.config, sort_keys=False))

    def declare(self, name: str, count: int, **keys: Any) -> Path:
        """Write a preset of VMs that are asked over HTTP; `healthcheck=None` leaves that out."""
        check = keys.pop("healthcheck", {**HTTP_CHECK, "port": self.ports["vms"]})
        preset = {"count": count, "flavor": "web", "image": "image-1", **keys}
        return self.write_preset(
            name, yaml.safe_dump(preset | ({"healthcheck": check} if check else {}))
        )

    def write_preset(self, name: str, text: str) -> Path:
        """Write a preset's file."""
        path = self.presets / f"{name}.yaml"
        _write(path, text)
        return path

    # Processes

    def up(self, *options: str) -> Daemon:
        """Run the whole suite in one process, until it manages."""
        daemon = self.start(*options)
        self.until_managing()
        return daemon

    def start(self, *options: str) -> Daemon:
        """The same, without waiting."""
        return self._run("up", [VMSHEPHERD, "up", "-c", str(self.file), *options])

    def serve(
        self, service: str, *, before: Sequence[str] = (), command: Sequence[str] = ()
    ) -> Daemon:
        """Run one service: `before` it what changes its surroundings, a `command` in its place."""
        chosen = command or [VMSHEPHERD, "serve", service, "-c", str(self.file)]
        return self._run(service, [*before, *chosen])

    def serve_all(self) -> None:
        """Run each service as a process of its own, until the suite manages."""
        for service in SERVICES:
            if service not in self.daemons:
                self.serve(service)
        self.until_managing()

    def until_managing(self) -> None:
        """Wait until this life of it, and no former one, has looked at every preset."""
        until(self._is_managing, "the suite manages every preset")

    def close(self) -> None:
        """Leave nothing running: not the suite, not its VMs."""
        self._channel.close()
        for daemon in self.daemons.values():
            daemon.kill_with_all()
        linux.kill_beneath(self.folder)

    def vm_processes(self) -> dict[int, Path]:
        """Pids of all processes of VMs, each with its VM's folder."""
        return linux.processes_beneath(self.vms_folder)

    def pid_of(self, vm: VmView) -> int:
        """The pid of a VM's own process."""
        return int((self.vms_folder / vm.vm_id / "birth").read_text().split("\n")[1].split()[0])

    # The admin API

    def preset(self, name: str) -> PresetView:
        """One preset."""
        request = api.GetPresetRequest(preset=name)
        view: PresetView = self.api.GetPreset(request, timeout=10).preset
        return view

    def list_presets(self) -> api.ListPresetsResponse:
        """All presets."""
        answer: api.ListPresetsResponse = self.api.ListPresets(
            api.ListPresetsRequest(page_size=1000), timeout=10
        )
        return answer

    def vms(self, preset: str = "") -> list[VmView]:
        """VMs of a preset, or all."""
        request = api.ListVmsRequest(preset=preset, page_size=1000)
        return list(self.api.ListVms(request, timeout=10).vms)

    def running(self, preset: str) -> dict[str, VmView]:
        """VMs of a preset that run and pass their check, by id."""
        running = VmStatus.VM_STATUS_RUNNING
        return {vm.vm_id: vm for vm in self.vms(preset) if vm.status == running}

    def events(self, preset: str = "", vm: str = "", *kinds: str) -> list[Event]:
        """Events, oldest first."""
        chosen = EventFilter(preset=preset, vm_id=vm, kinds=kinds)
        request = api.ListEventsRequest(filter=chosen, ascending=True, page_size=1000)
        events: list[Event] = []
        while True:
            page = self.api.ListEvents(request, timeout=10)
            events.extend(page.events)
            if not page.next_page_token:
                return events
            request.page_token = page.next_page_token

    def conditions(self, preset: str) -> dict[str, str]:
        """Why a preset is as it is: messages by code."""
        return {each.code: each.message for each in self.preset(preset).conditions}

    def until_running(self, preset: str, count: int) -> dict[str, VmView]:
        """Wait until exactly so many VMs are there and run, and nothing is left to do."""

        def settled() -> dict[str, VmView]:
            steady = PresetPhase.PRESET_PHASE_STEADY
            running = self.running(preset)
            is_settled = self.preset(preset).phase == steady and len(self.vms(preset)) == count
            return running if is_settled and len(running) == count else {}

        return until(settled, f"exactly {count} VMs of {preset} run")

    def until_condition(self, preset: str, code: str, words: str = "") -> str:
        """Wait until a preset gives this reason; its sentence."""

        def said() -> str:
            sentence = self.conditions(preset).get(code, "")
            return sentence if words in sentence else ""

        return until(said, f"{preset} says {code} {words}")

    # The command

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `vmshepherd` with these arguments, as a user would."""
        return subprocess.run(
            [VMSHEPHERD, *arguments],
            cwd=self.folder,
            env={**os.environ, "VMSHEPHERD_ADDRESS": self.address("orchestrator")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json_of(self, *arguments: str) -> Any:
        """What a command prints with `--output json`."""
        done = self.command(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _config(self) -> dict[str, Any]:
        own: dict[str, Any] = {
            name: {"listen": {"address": self.address(name)}} for name in SERVICES
        }
        own["preset"]["sources"] = [{"name": "local", "options": {"path": "presets.d"}}]
        own["iaas"]["providers"] = {
            "process": {"driver": "process", "options": {"port": self.ports["vms"]}}
        }
        own["orchestrator"] |= {
            "interval": "1s",
            "soon": "500ms",
            "services": {
                "preset": self.address("preset"),
                "runtime": self.address("runtime"),
                "iaas": [self.address("iaas")],
                "health": self.address("health"),
            },
            # As short as a busy machine allows.
            "session": {
                "ttl": "6s",
                "refresh": "1s",
                "rpc_timeout": "1500ms",
                "margin": "1500ms",
                "lock_delay": "1s",
            },
        }
        log: Mapping[str, Any] = {"level": "info", "format": "logfmt"}
        return {"suite_id": "e2e", "state_dir": "state", "log": log, **own}

    def _run(self, name: str, command: Sequence[str]) -> Daemon:
        if not self.file.exists():
            self.write_config()
        daemon = Daemon(command, log=self.folder / f"{name}.log", cwd=self.folder)
        self.daemons[name] = daemon
        return daemon

    def _is_managing(self) -> bool:
        for name, daemon in self.daemons.items():
            assert daemon.is_alive, f"{name} has ended: {daemon.said()[-2000:]}"
        views = self.list_presets().presets
        owner = self.api.GetInfo(api.GetInfoRequest(), timeout=10).owner
        return {view.name for view in views} >= self._declared() and all(
            view.owner == owner and view.HasField("last_cycle_time") for view in views
        )

    def _declared(self) -> set[str]:
        return {path.stem for path in self.presets.glob("*.yaml")}


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)
