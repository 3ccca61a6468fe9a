"""The contracts as others speak them: grpcurl by reflection, and a client of stubs in Go.

Both are built by `go`, once, into pytest's cache.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.suite import SERVICES, Suite
from tests.e2e.waiting import until
from vmshepherd.orchestrator.v1.orchestrator_service_pb2 import DESCRIPTOR

# Building takes minutes on a small machine.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
CLIENT = Path(__file__).parent / "clients" / "go"
ADMIN = "vmshepherd.orchestrator.v1.OrchestratorService"
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"
GENERATORS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.6",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1",
)
OWN_SERVICES = {
    "runtime": "vmshepherd.runtime.v1.RuntimeService",
    "preset": "vmshepherd.preset.v1.PresetService",
    "iaas": "vmshepherd.iaas.v1.IaasService",
    "health": "vmshepherd.health.v1.HealthService",
    "orchestrator": ADMIN,
}


@pytest.fixture(scope="module")
def go_bin(pytestconfig: pytest.Config) -> Path:
    """Where programs in Go are put; skips aloud where there is no Go."""
    if shutil.which("go") is None:
        pytest.skip("Go is missing: apt-get install golang-go")
    assert pytestconfig.cache is not None
    return pytestconfig.cache.mkdir("go-programs")


@pytest.fixture
def running(suite: Suite) -> Suite:
    """A suite with two VMs."""
    suite.declare("web", 2)
    suite.up()
    suite.until_running("web", 2)
    return suite


def test_grpcurl_lists_and_describes_every_service_on_every_port(
    running: Suite, go_bin: Path
) -> None:
    grpcurl = installed(GRPCURL, go_bin)
    for service in SERVICES:
        address = running.address(service)
        listed = set(plain(grpcurl, address, "list").split())
        assert listed >= {OWN_SERVICES[service], "grpc.health.v1.Health"}
        for name in listed:
            assert f"service {name.rpartition('.')[2]}" in plain(grpcurl, address, "describe", name)
        methods = plain(grpcurl, address, "list", OWN_SERVICES[service]).split()
        assert methods
        for method in methods:
            assert "rpc " in plain(grpcurl, address, "describe", method)
        health = called(grpcurl, address, "grpc.health.v1.Health/Check", {})
        assert health == {"status": "SERVING"}


def test_grpcurl_calls_each_rpc_of_the_admin_api(running: Suite, go_bin: Path) -> None:
    grpcurl, address = installed(GRPCURL, go_bin), running.address("orchestrator")
    first, second = running.running("web")
    web, me = {"preset": "web"}, {"actor": "grpcurl"}
    calls: dict[str, tuple[dict[str, Any], str]] = {
        "ListPresets": ({"page_size": 10}, "presets"),
        "GetPreset": (web, "vms"),
        "PlanPreset": (web, "plan"),
        "ReconcilePreset": ({"presets": ["web"], "wait": True}, "results"),
        "PausePreset": ({**web, **me, "processes": ["PROCESS_CREATE"]}, "pause"),
        "ResumePreset": ({**web, **me}, "was_paused"),
        "ListVms": ({**web, "statuses": ["VM_STATUS_RUNNING"]}, "vms"),
        "GetVm": ({"vm_id": first}, "vm"),
        "ProtectVm": ({**web, **me, "vm_id": first, "protected": False}, "was_protected"),
        "ExplainVm": ({"vm_id": first}, "events"),
        "ListEvents": ({"filter": {"kinds": ["VM_CREATED"]}}, "events"),
        "WatchEvents": ({"after_sequence": 0}, "events"),
        "GetInfo": ({}, "backends"),
        "TerminateVm": ({**web, **me, "vm_id": second, "reason": "odd"}, "existed"),
    }
    rpcs = DESCRIPTOR.services_by_name["OrchestratorService"].methods_by_name
    assert set(calls) == set(rpcs), "each RPC is called"
    called(grpcurl, address, f"{ADMIN}/ProtectVm", {**web, **me, "vm_id": first, "protected": True})
    for rpc, (request, told) in calls.items():
        streams = rpcs[rpc].server_streaming
        ask = first_of_stream if streams else called
        assert ask(grpcurl, address, f"{ADMIN}/{rpc}", request)[told], rpc
    until(lambda: second not in {vm.vm_id for vm in running.vms("web")}, "it did what was asked")


def test_grpcurl_is_told_what_is_wrong_in_its_own_words(running: Suite, go_bin: Path) -> None:
    grpcurl, address = installed(GRPCURL, go_bin), running.address("orchestrator")
    done = asked(grpcurl, address, f"{ADMIN}/GetPreset", {"preset": "wep"})
    assert done.returncode != 0
    assert "NotFound" in done.stderr
    assert "'web'" in done.stderr
    assert '"domain": "vmshepherd"' in done.stderr


def test_a_client_of_stubs_in_go_lists_presets_and_hears_events(
    running: Suite, go_bin: Path, tmp_path: Path
) -> None:
    client = built_client(go_bin, tmp_path / "go")
    log = tmp_path / "client.log"
    daemon = Daemon([str(client), running.address("orchestrator")], log=log, cwd=tmp_path)
    running.daemons["client"] = daemon
    until(lambda: "web PRESET_PHASE_STEADY map[RUNNING:2]" in daemon.said(), "it lists presets")
    until(lambda: daemon.said().count("VM_CREATED web") == 2, "it hears of what was")
    running.declare("web", 3)
    until(lambda: daemon.said().count("VM_CREATED web") == 3, "it hears of what happens")


def installed(program: str, go_bin: Path) -> str:
    """The path of a program in Go, built if it is not there yet, by one test process only."""
    path, version = program.split("@")
    place = go_bin / version / path.rpartition("/")[2]
    with (go_bin / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            run(["go", "install", program], cwd=go_bin, GOBIN=str(place.parent))
    return str(place)


def built_client(go_bin: Path, folder: Path) -> Path:
    """The client, its stubs generated from the contracts as they are now."""
    generators = [Path(installed(each, go_bin)).parent for each in GENERATORS]
    path = os.pathsep.join([*map(str, generators), os.environ["PATH"]])
    shutil.copytree(CLIENT, folder)
    buf = str(Path(sys.executable).with_name("buf"))
    protos = REPOSITORY / "protos"
    generate = [buf, "generate", str(protos), "--path", str(protos / "vmshepherd")]
    run([*generate, "--template", "buf.gen.yaml"], cwd=folder, PATH=path)
    run(["go", "build", "-o", "client", "."], cwd=folder)
    return folder / "client"


def run(command: Sequence[str], *, cwd: Path, **env: str) -> None:
    """Run a step of a build; what it says is told when it fails."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def plain(grpcurl: str, address: str, *arguments: str) -> str:
    """What grpcurl prints of a server."""
    done = subprocess.run(
        [grpcurl, "-plaintext", address, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(
    grpcurl: str, address: str, method: str, request: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    """One call."""
    command = [grpcurl, "-plaintext", "-emit-defaults", "-d", json.dumps(request), address, method]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def called(grpcurl: str, address: str, method: str, request: dict[str, Any]) -> Any:
    """The answer of one call."""
    done = asked(grpcurl, address, method, request)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def first_of_stream(grpcurl: str, address: str, method: str, request: dict[str, Any]) -> Any:
    """The first message of a stream that says anything; the stream is left then."""
    command = [grpcurl, "-plaintext", "-d", json.dumps(request), address, method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            # The first may be empty: it tells that the watch has begun.
            if line in {"}\n", "{}\n"} and (message := json.loads(text)):
                process.kill()
                return message
            text = "" if line == "{}\n" else text
    raise AssertionError(f"{method} ended: {text}")
