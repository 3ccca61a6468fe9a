"""The services by name: where their packages are, and how one of them runs alone.

Packages are imported when they are needed: a command for one service needs no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from vmshepherd_kit import entry
from vmshepherd_kit.entry import Running
from vmshepherd_kit.settings import Settings

PACKAGES: Final = {
    "runtime": "runtime_service",
    "preset": "preset_service",
    "iaas": "iaas_service",
    "health": "health_service",
    "orchestrator": "orchestrator",
}


@dataclass(frozen=True)
class Service:
    """What it takes to run one."""

    section: str
    config: type[Settings]
    running: Running[Any]


def load(name: str) -> Service:
    """A service of ours by its name."""
    package = PACKAGES[name]
    config = import_module(f"{package}.config")
    server = import_module(f"{package}.server")
    return Service(section=config.SECTION, config=config.Config, running=server.running)


def run(name: str, path: Path | None) -> int:
    """Run one service as this process; its exit code."""
    service = load(name)
    return entry.run(service.section, service.config, service.running, path=path)
