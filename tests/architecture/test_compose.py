"""The images and the composition of containers, as far as files tell: no daemon is asked.

A service that is added, renamed or moved to another port must be so here, too; and no container may
be less confined, or reachable from farther away, than was meant.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from admin.services import PACKAGES, settings_of

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS = yaml.safe_load((ROOT / "deploy/compose/vmshepherd.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

STAGE = re.compile(r"^FROM (?P<parent>\S+) AS (?P<name>\S+)$", re.MULTILINE)
SERVICES = sorted(PACKAGES)


def stages() -> dict[str, str]:
    """What stands in each stage of the Dockerfile."""
    found = list(STAGE.finditer(DOCKERFILE))
    ends = [stage.start() for stage in found[1:]] + [len(DOCKERFILE)]
    return {
        stage["name"]: DOCKERFILE[stage.end() : end] for stage, end in zip(found, ends, strict=True)
    }


def ancestors(stage: str) -> list[str]:
    """The stage and those that it is built upon."""
    parents = {found["name"]: found["parent"] for found in STAGE.finditer(DOCKERFILE)}
    line = [stage]
    while line[-1] in parents:
        line.append(parents[line[-1]])
    return line[:-1]


def instruction(stage: str, name: str) -> str:
    """The arguments of the one such instruction of a stage."""
    (found,) = re.findall(rf"^{name} (.+)$", stages()[stage], re.MULTILINE)
    return str(found)


def default_port(service: str) -> str:
    address: str = settings_of(service)().listen.address  # type: ignore[attr-defined]
    return address.rpartition(":")[2]


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_an_image_that_serves_it(service: str) -> None:
    command = json.loads(instruction(PACKAGES[service], "CMD"))
    assert command == ["serve", service, "-c", "/etc/vmshepherd/vmshepherd.yaml"]
    assert instruction(PACKAGES[service], "EXPOSE") == default_port(service)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_asked_for_its_health_at_its_own_port(service: str) -> None:
    check = instruction(PACKAGES[service], "HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    assert command == [
        "python",
        "-m",
        "vmshepherd_kit.probe",
        f"127.0.0.1:{default_port(service)}",
    ]


def test_without_a_target_the_whole_suite_is_built() -> None:
    assert list(stages())[-1] == "vmshepherd"
    assert json.loads(instruction("vmshepherd", "CMD")) == ["up"]


@pytest.mark.parametrize("image", [*PACKAGES.values(), "vmshepherd"])
def test_every_image_runs_as_a_user_without_rights_and_ends_politely(image: str) -> None:
    assert ancestors(image) == [image, "suite", "base"]
    # A later USER would give the rights back.
    assert re.findall(r"^(?:USER|STOPSIGNAL|ENTRYPOINT) ", stages()[image], re.MULTILINE) == []
    assert instruction("suite", "USER") == "10001:10001"
    assert instruction("suite", "STOPSIGNAL") == "SIGTERM"
    # A shell in front would keep the signal to itself.
    assert json.loads(instruction("suite", "ENTRYPOINT")) == ["vmshepherd"]


def test_all_that_is_fetched_is_checked_against_a_lock() -> None:
    installs = re.findall(r"pip --python \S+ install (.*)$", DOCKERFILE, re.MULTILINE)
    assert len(installs) == 5
    for install in installs:
        assert "--no-index" in install or re.search(
            r"--require-hashes -r requirements(-dev|-iaas|-runtime)?\.lock$", install
        )


@pytest.mark.parametrize("image", [*PACKAGES.values(), "vmshepherd"])
def test_only_what_speaks_to_databases_or_clouds_carries_what_they_need(image: str) -> None:
    added = re.findall(r"^COPY --from=(\S+)", stages()[image], re.MULTILINE)
    needed = {
        "runtime_service": ["stores"],
        "iaas_service": ["clouds"],
        "vmshepherd": ["stores", "clouds"],
    }
    assert added == needed.get(image, [])
    assert "-r requirements-runtime.lock" in stages()["stores"]
    assert "-r requirements-iaas.lock" in stages()["clouds"]


@pytest.mark.parametrize("name", ["Dockerfile", "docker-compose.yml", ".dockerignore"])
def test_no_file_says_where_packages_come_from(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.findall(r"://|index-url|trusted-host", text) == []


def test_everything_that_the_wheel_is_built_from_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {package.split("/")[0] for package in packages}
    files = {"pyproject.toml", "hatch_build.py", "LICENSE", PROJECT["project"]["readme"]}
    locks = {path.name for path in ROOT.glob("requirements*.lock")}
    assert let_in == needed | files | locks


def test_images_bear_the_version_of_the_project() -> None:
    version = PROJECT["project"]["version"]
    assert f'image.version="{version}"' in DOCKERFILE
    assert {each["image"].rpartition(":")[2] for each in CONTAINERS.values()} == {version}


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_a_container_of_its_own_image(service: str) -> None:
    container = CONTAINERS[service]
    assert container["build"] == {"context": ".", "target": PACKAGES[service]}
    assert container["image"].startswith(f"vmshepherd/{PACKAGES[service]}:")
    assert {"entrypoint", "command", "user"} & container.keys() == set()


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_confined(name: str) -> None:
    container = CONTAINERS[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    freed = {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "user"}
    assert freed & container.keys() == set()
    assert container.get("network_mode") != "host"
    assert "docker.sock" not in str(container)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_started_again_and_may_end_in_peace(name: str) -> None:
    container = CONTAINERS[name]
    assert container["restart"] == "unless-stopped"
    assert container["stop_grace_period"] == "20s"
    assert container["init"] is True  # children of children, and VMs, are reaped


def test_the_admin_api_alone_is_published_and_on_loopback_alone() -> None:
    published = {name: each["ports"] for name, each in CONTAINERS.items() if "ports" in each}
    assert published == {"orchestrator": ["127.0.0.1:50055:50055"]}


def test_the_prober_shares_the_loopback_of_the_vms() -> None:
    assert CONTAINERS["iaas"]["network_mode"] == CONTAINERS["health"]["network_mode"]


def test_neither_of_the_two_owns_the_network_that_they_share() -> None:
    # A restart of its owner would leave the other in a network that is gone.
    owner = CONTAINERS["iaas"]["network_mode"].removeprefix("service:")
    assert owner not in PACKAGES
    assert CONTAINERS[owner]["entrypoint"] == ["sleep", "infinity"]


def test_the_orchestrator_starts_when_all_four_services_are_healthy() -> None:
    others = {name: {"condition": "service_healthy"} for name in SERVICES if name != "orchestrator"}
    assert CONTAINERS["orchestrator"]["depends_on"] == others


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_listens_where_others_reach_it(service: str) -> None:
    listen = SETTINGS[service]["listen"]
    assert listen == {"address": f"0.0.0.0:{default_port(service)}", "insecure": True}


def test_every_address_that_is_dialled_is_a_name_of_the_network() -> None:
    dialled = SETTINGS["orchestrator"]["services"]
    assert {*dialled, "orchestrator"} == set(PACKAGES)
    for service, addresses in dialled.items():
        for address in [addresses] if isinstance(addresses, str) else addresses:
            host, _, port = address.rpartition(":")
            assert port == default_port(service)
            assert host in names_in_the_network(service)


def names_in_the_network(service: str) -> set[str]:
    """The names that lead to a service."""
    mode = CONTAINERS[service].get("network_mode", f"service:{service}")
    owner = mode.removeprefix("service:")
    networks = CONTAINERS[owner]["networks"]
    aliases = networks["suite"]["aliases"] if isinstance(networks, dict) else []
    return {owner, *aliases}


@pytest.mark.parametrize("service", ["runtime", "preset", "iaas"])
def test_what_must_outlive_a_container_is_in_a_volume(service: str) -> None:
    assert f"{service}:{SETTINGS['state_dir']}" in CONTAINERS[service]["volumes"]
    assert service in COMPOSE["volumes"]


@pytest.mark.parametrize(
    "command",
    [
        ["config", "check", "deploy/compose/vmshepherd.yaml"],
        [
            "preset",
            "validate",
            "-c",
            "deploy/compose/vmshepherd.yaml",
            *map(str, sorted((ROOT / "deploy/compose/presets.d").iterdir())),
        ],
    ],
    ids=["configuration", "presets"],
)
def test_configuration_and_presets_are_sound(command: list[str]) -> None:
    check = subprocess.run(
        [sys.executable, "-m", "admin", *command],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout + check.stderr
