"""The locks install anywhere: pins with hashes, and no word of where a package came from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = "requirements-runtime.lock"
IAAS = "requirements-iaas.lock"
LOCKS = ["requirements.lock", "requirements-dev.lock", RUNTIME, IAAS]
# The extras that the image of one service alone carries.
EXTRAS = {RUNTIME: ["postgres", "zookeeper"], IAAS: ["openstack"]}
ENTRY = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>[^\s;]+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    return {entry["name"]: entry["version"] for entry in ENTRY.finditer(text(lock))}


def text(lock: str) -> str:
    return (ROOT / lock).read_text()


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in requirements}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_no_address(lock: str) -> None:
    assert not re.findall(r"://|^\s*-(?!-hash=)\S+", text(lock), re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock: str) -> None:
    entries = re.split(r"^(?=[a-z])", text(lock), flags=re.MULTILINE)[1:]
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_locks_hold_what_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert names(project["project"]["dependencies"]) <= pins("requirements.lock").keys()
    assert names(project["dependency-groups"]["dev"]) <= pins("requirements-dev.lock").keys()


@pytest.mark.parametrize("lock", EXTRAS)
def test_what_drivers_of_one_service_need_is_locked_for_it_alone(lock: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    needed = set[str]().union(*(names(extras[extra]) for extra in EXTRAS[lock]))
    assert needed <= pins(lock).keys()
    for other in {*LOCKS} - {lock, "requirements-dev.lock"}:
        assert needed & pins(other).keys() == set(), other


@pytest.mark.parametrize("lock", EXTRAS)
def test_services_speak_to_one_another_by_the_same_versions(lock: str) -> None:
    assert pins("requirements.lock").items() <= pins(lock).items()


@pytest.mark.parametrize("shipped", ["requirements.lock", *EXTRAS])
def test_tests_run_on_the_very_versions_that_are_shipped(shipped: str) -> None:
    assert pins(shipped).items() <= pins("requirements-dev.lock").items()


def test_the_build_generates_with_the_locked_generators() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    locked = pins("requirements-dev.lock")
    exact = dict(requirement.split("==") for requirement in build if "==" in requirement)
    assert exact == {"grpcio-tools": locked["grpcio"], "mypy-protobuf": locked["mypy-protobuf"]}
