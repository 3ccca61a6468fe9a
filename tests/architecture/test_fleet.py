"""deploy/fleet.yml is docker-compose.yml with several of what may be several, and a database; the
files of examples/fleet fit together likewise.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SIMPLE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
WHOLE = yaml.safe_load((ROOT / "deploy/fleet.yml").read_text())
FLEET: dict[str, Any] = WHOLE["services"]
SETTINGS = yaml.safe_load((ROOT / "deploy/fleet/vmshepherd.yaml").read_text())
MACHINES = ["one", "two", "three"]
FILES = ["deploy/fleet/vmshepherd.yaml", *(f"examples/fleet/{name}.yaml" for name in MACHINES)]

# What makes a fleet of it.
OWN = {"deploy", "ports", "depends_on", "environment", "volumes", "build"}
PASSWORD = "${DATABASE_PASSWORD:?choose one}"


def without(container: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in container.items() if key not in keys}


@pytest.mark.parametrize("name", SIMPLE)
def test_a_container_of_the_fleet_is_as_it_is_in_the_simple_suite(name: str) -> None:
    assert without(FLEET[name], OWN) == without(SIMPLE[name], OWN)
    assert FLEET[name]["build"] == SIMPLE[name]["build"] | {"context": ".."}


def test_there_are_several_of_what_may_be_several() -> None:
    several = {name: each["deploy"]["replicas"] for name, each in FLEET.items() if "deploy" in each}
    assert several == {"orchestrator": 3, "runtime": 2}


def test_each_admin_api_is_published_on_loopback_and_nothing_else() -> None:
    published = {name: each["ports"] for name, each in FLEET.items() if "ports" in each}
    assert published == {"orchestrator": ["127.0.0.1:50055-50057:50055"]}


def test_the_database_is_confined_as_the_others_are() -> None:
    same = {"read_only", "cap_drop", "security_opt", "restart", "stop_grace_period", "init"}
    assert without(FLEET["database"], FLEET["database"].keys() - same) == without(
        FLEET["preset"], FLEET["preset"].keys() - same
    )
    assert FLEET["database"]["networks"] == ["suite"]
    assert FLEET["database"]["user"] == "postgres"


def test_the_password_is_demanded_and_stands_in_no_file() -> None:
    assert FLEET["database"]["environment"]["POSTGRES_PASSWORD"] == PASSWORD
    assert FLEET["runtime"]["environment"] == {"PGPASSWORD": PASSWORD}
    for file in FILES:
        assert "password:" not in (ROOT / file).read_text()


def test_the_runtime_services_use_that_database() -> None:
    prepared = FLEET["database"]["environment"]
    assert SETTINGS["runtime"]["driver"] == "postgres"
    assert SETTINGS["runtime"]["options"] == {
        "host": "database",
        "database": prepared["POSTGRES_DB"],
        "user": prepared["POSTGRES_USER"],
    }
    assert FLEET["runtime"]["depends_on"] == {"database": {"condition": "service_healthy"}}


def test_what_must_outlive_a_container_is_in_a_volume() -> None:
    volumes = [volume for each in FLEET.values() for volume in each.get("volumes", [])]
    mounted = {volume.partition(":")[0] for volume in volumes}
    assert set(WHOLE["volumes"]) == {"database", "preset", "iaas"} <= mounted


def test_the_machines_of_the_example_ask_every_runtime_service_there_is() -> None:
    files = [
        yaml.safe_load((ROOT / f"examples/fleet/{name}.yaml").read_text()) for name in MACHINES
    ]
    runtimes = [each["runtime"] for each in files if "runtime" in each]
    listening = [each.get("listen", {"address": "127.0.0.1:50052"})["address"] for each in runtimes]
    dialled = {each["orchestrator"]["services"]["runtime"] for each in files}
    assert dialled == {f"ipv4:{','.join(listening)}"}


@pytest.mark.parametrize("file", FILES)
def test_configurations_are_sound(file: str) -> None:
    check = subprocess.run(
        [sys.executable, "-m", "admin", "config", "check", file],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout + check.stderr
