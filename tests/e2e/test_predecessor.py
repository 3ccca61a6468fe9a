"""The configuration and the preset of VmShepherd 1.6 start unchanged, by the command of then."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import linux
from tests.e2e.daemon import VMSHEPHERD, Daemon
from tests.e2e.waiting import until

# Its file names no ports, so it takes those of every suite by default: one at a time.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("default-ports")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "predecessor"
PRESET = "C_DEV-app-dev"


class Former:
    """The suite of then, in a network of its own where that is allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "predecessor"
        shutil.copytree(EXAMPLE, self.folder)
        self.env = {"XDG_STATE_HOME": str(folder / "state"), "HOME": str(folder)}
        self._alone = linux.without_network()
        before = [*self._alone, *linux.WITH_LOOPBACK] if self._alone else []
        self.daemon = Daemon(
            [*before, VMSHEPHERD, "-c", "settings.example.yaml"],
            log=folder / "former.log",
            cwd=self.folder,
            env=self.env,
        )

    def json_of(self, *arguments: str) -> Any:
        """What a command prints as JSON; None while nobody answers."""
        assert self.daemon.is_alive, self.daemon.said()
        enter = linux.enter(self.daemon.pid) if self._alone else []
        done = subprocess.run(
            [*enter, VMSHEPHERD, *arguments, "--output", "json"],
            cwd=self.folder,
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None


@pytest.fixture
def former(tmp_path: Path) -> Iterator[Former]:
    """It runs; what it said is shown when the test fails."""
    running = Former(tmp_path)
    yield running
    print(running.daemon.said())  # noqa: T201
    running.daemon.kill_with_all()
    linux.kill_beneath(tmp_path)


def test_the_former_configuration_and_preset_run_unchanged(former: Former) -> None:
    def made() -> Any:
        listed = former.json_of("vm", "list", "--preset", PRESET)
        return listed and listed["vms"]

    (vm,) = until(made, "its one VM is there")
    assert vm["flavor"] == "m1.small"
    assert vm["image"] == "ubuntu-xenial"
    answer = former.json_of("preset", "list")
    (preset,) = answer["presets"]
    assert (preset["name"], preset["count"], preset["check"]) == (PRESET, 1, "http")
    assert preset["findings"] == []
    assert answer.get("sourceErrors", []) == []
    info = former.json_of("info")
    assert all(backend["reachable"] for backend in info["backends"])
    assert former.daemon.stop() == 0


def test_the_example_holds_every_key_of_then() -> None:
    settings = (EXAMPLE / "settings.example.yaml").read_text()
    preset = (EXAMPLE / "config" / "presets.d" / f"{PRESET}.conf").read_text()
    for key in ("log_level", "http", "allowed_methods", "worker_interval", "runtime", "defaults"):
        assert f"{key}:" in settings
    for key in ("manage_interval", "manage_expire", "network", "subnet", "meta_tags", "userdata"):
        assert f"{key}:" in preset
