"""The services by name: where their packages are, and how one of them runs alone.

Packages are imported when they are needed: a command for one service needs no other.
"""

from __future__ import annotations

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


def settings_of(name: str) -> type[Settings]:
    """The settings of a service's section."""
    config: type[Settings] = import_module(f"{PACKAGES[name]}.config").Config
    return config


def running_of(name: str) -> Running[Any]:
    """What runs a service."""
    running: Running[Any] = import_module(f"{PACKAGES[name]}.server").running
    return running


def run(name: str, path: Path | None) -> int:
    """Run one service as this process; its exit code."""
    return entry.run(name, settings_of(name), running_of(name), path=path)
