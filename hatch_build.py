"""Generate the Python package `vmshepherd` (messages, stubs, types) from `protos/`.

Hatchling runs the hook below for every wheel and editable install; `make protos` runs this file as
a script. The contracts are the source: what is generated lies beside them, is never committed and
never edited. Needs grpcio-tools and mypy-protobuf beside its interpreter; never fetches anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from filecmp import cmp
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
        """Called by hatchling; a wheel, editable too, needs the stubs, and an sdist does not."""
        del version, build_data
        if self.target_name == "wheel":
            generate(Path(self.root) / "protos")


def generate(protos: Path) -> list[Path]:
    """Bring the package up to date with the contracts beneath `protos`; return the files changed.

    The contracts are compiled elsewhere first: a wrong one ends the program and leaves the former
    stubs whole, and a file that stays the same is not touched, so that whoever imports the package
    meanwhile sees no gap.
    """
    with TemporaryDirectory() as scratch:
        fresh = compiled(protos, into=Path(scratch))
        changed = differences(fresh, protos / PACKAGE)
        for name in changed:
            replace(fresh / name, protos / PACKAGE / name)
    return changed


def stale(protos: Path) -> list[Path]:
    """What `generate` would change."""
    with TemporaryDirectory() as scratch:
        return differences(compiled(protos, into=Path(scratch)), protos / PACKAGE)


def compiled(protos: Path, *, into: Path) -> Path:
    """Make the whole package beneath `into`, from nothing, and return its folder."""
    contracts = sorted((protos / PACKAGE).rglob("*.proto"))
    package = into / PACKAGE
    package.mkdir()
    if contracts:
        run_protoc(protos, contracts, into=into)
    # protoc writes no `__init__.py`; without one at each level import-linter silently sees nothing.
    (package / "py.typed").touch()
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__init__.py").touch()
    return package


def differences(fresh: Path, package: Path) -> list[Path]:
    """Names of the generated files that are new, gone or different in `fresh`."""
    made = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    here = {path.relative_to(package) for kind in GENERATED for path in package.rglob(kind)}
    changed = {name for name in made & here if not cmp(fresh / name, package / name, shallow=False)}
    return sorted((made ^ here) | changed)


def replace(source: Path, target: Path) -> None:
    """Make `target` what `source` is: absent, or of the same content, at once and never in part."""
    if not source.exists():
        target.unlink()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, beside)
    beside.replace(target)


def run_protoc(protos: Path, contracts: list[Path], *, into: Path) -> None:
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
    # The plugins must see the packages of this interpreter: an isolated build has them on its path.
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


def main(arguments: list[str]) -> None:
    """`hatch_build.py` brings the stubs up to date; `--check` fails when they are not."""
    protos = Path(__file__).resolve().parent / "protos"
    if arguments == ["--check"]:
        old = stale(protos)
        sys.exit(f"stale stubs, run `make protos`: {', '.join(map(str, old))}" if old else 0)
    print(f"stubs generated, {len(generate(protos))} files changed")


if __name__ == "__main__":
    main(sys.argv[1:])
