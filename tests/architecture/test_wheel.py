"""The wheel carries the suite and nothing else, because site-packages is shared."""

from __future__ import annotations

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    "admin",
    "health_service",
    "iaas_service",
    "orchestrator",
    "preset_service",
    "runtime_service",
    "vmshepherd",
    "vmshepherd_kit",
}
# One build serves all tests of this file.
pytestmark = pytest.mark.xdist_group("wheel")

INFO = "vmshepherd-2.0.0.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return ZipFile(target / "vmshepherd-2.0.0-py3-none-any.whl")


def files(wheel: ZipFile) -> set[PurePosixPath]:
    return {PurePosixPath(name) for name in wheel.namelist()}


def test_the_top_level_names_are_these(wheel: ZipFile) -> None:
    assert {path.parts[0] for path in files(wheel)} == TOP_LEVEL | {INFO}


def test_every_contract_has_its_typed_stubs(wheel: ZipFile) -> None:
    present = files(wheel)
    contracts = {path for path in present if path.suffix == ".proto"}
    assert len(contracts) >= len({path.parts[1] for path in contracts}) == 5
    for contract in contracts:
        for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
            assert contract.with_name(contract.stem + ending) in present


def test_every_level_of_every_package_is_a_regular_one(wheel: ZipFile) -> None:
    modules = {path for path in files(wheel) if path.suffix == ".py"}
    levels = {level for path in modules for level in path.parents if level.parts}
    assert {level for level in levels if level / "__init__.py" not in modules} == set()


def test_every_package_says_that_it_is_typed(wheel: ZipFile) -> None:
    assert {path.parts[0] for path in files(wheel) if path.name == "py.typed"} == TOP_LEVEL


def test_every_entry_point_names_a_module_of_the_wheel(wheel: ZipFile) -> None:
    entries = ConfigParser(delimiters=("=",))
    entries.read_string(wheel.read(f"{INFO}/entry_points.txt").decode())
    targets = {target for section in entries.sections() for target in entries[section].values()}
    modules = {target.split(":")[0].replace(".", "/") for target in targets}
    present = {str(path.with_suffix("")).removesuffix("/__init__") for path in files(wheel)}
    assert modules - present == set()


def test_the_license_travels_along(wheel: ZipFile) -> None:
    assert b"Apache License" in wheel.read(f"{INFO}/licenses/LICENSE")
