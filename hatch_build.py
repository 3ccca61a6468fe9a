"""Generate the Python package `vmshepherd` (messages, stubs, types) from the contracts in `protos/`.

Hatchling runs the hook below for every wheel and editable install; `make protos` runs this file as a script. The
contracts are the source: what is generated lies beside them, is never committed and never edited. Needs grpcio-tools
and mypy-protobuf beside the interpreter that runs it; never fetches anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "vmshepherd"
GENERATED = ("*.py", "*.pyi", "py.typed")


class GenerateStubs(BuildHookInterface[Any]):
    """Makes the stubs before the files of a wheel are chosen."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling; `version` is "standard" or "editable", and both need the same stubs."""
        del version, build_data
        if self.target_name == "wheel":
            generate(Path(self.root) / "protos")


def generate(protos: Path) -> list[Path]:
    """Bring the package up to date with the contracts beneath `protos`, and return them; exits when one is wrong.

    The contracts are compiled elsewhere first: a wrong one leaves the former stubs whole, and a file that has not
    changed is not touched, so that whoever imports the package meanwhile sees no gap.
    """
    contracts = sorted((protos / PACKAGE).rglob("*.proto"))
    with TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        if contracts:
            compile_all(protos, contracts, into=fresh)
            mark_packages(fresh / PACKAGE)
        replace_stubs(fresh / PACKAGE, protos / PACKAGE)
    return contracts


def compile_all(protos: Path, contracts: list[Path], *, into: Path) -> None:
    """Run protoc once over all contracts."""
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={protos}",
        f"--proto_path={protos / 'third_party'}",
        f"--plugin=protoc-gen-mypy={plugin('protoc-gen-mypy')}",
        f"--plugin=protoc-gen-mypy_grpc={plugin('protoc-gen-mypy_grpc')}",
        f"--python_out={into}",
        f"--grpc_python_out={into}",
        f"--mypy_out=quiet:{into}",
        # Only the asyncio flavour is typed: it is the only one that we speak.
        f"--mypy_grpc_out=quiet,only_async:{into}",
        *map(str, contracts),
    ]
    # The plugins must see the packages that this interpreter sees: an isolated build has them on PYTHONPATH alone.
    paths = os.pathsep.join(path for path in sys.path if path)
    if subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode:
        sys.exit("protoc refused the contracts: its words stand above")


def plugin(name: str) -> str:
    """Path of a protoc plugin: beside this interpreter, or where an isolated build put it."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        sys.exit(f"{name} is not installed: it comes with mypy-protobuf (`make setup` installs it)")
    return found


def mark_packages(package: Path) -> None:
    """Make a regular, typed package of every level: protoc writes no `__init__.py`, and without one at each level
    import-linter and mypy silently see nothing."""
    (package / "py.typed").touch()
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__init__.py").touch()


def replace_stubs(fresh: Path, package: Path) -> None:
    """Make the generated files of `package` equal to those of `fresh`, touching only what differs."""
    wanted = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    present = {path.relative_to(package) for pattern in GENERATED for path in package.rglob(pattern)}
    for name in present - wanted:
        (package / name).unlink()
    for name in wanted:
        content = (fresh / name).read_bytes()
        if name not in present or (package / name).read_bytes() != content:
            (package / name).write_bytes(content)


if __name__ == "__main__":
    made = generate(Path(__file__).resolve().parent / "protos")
    print(f"generated the stubs of {len(made)} contracts")
