"""Settings of the `process` driver."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from vmshepherd_kit.settings import Duration, Settings


class Flavor(Settings):
    """What runs in VMs of a flavor; VM_ADDRESS, VM_PORT and others tell it where it is."""

    command: Annotated[list[str], Field(min_length=1)] | None = None
    """Program and arguments; none: the user data, if they are a script, else a small web server."""
    env: dict[str, str] = {}


class ProcessOptions(Settings):
    """All of them have defaults."""

    root: Path | None = None
    """Folder of the VMs' folders; default `vms` in the suite's state directory."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Port that each VM is told to listen on, at its own address."""
    flavors: dict[str, Flavor] = {}
    """When any is named, no other is accepted."""
    patience: Duration = timedelta(seconds=2)
    """Time that a VM has to end by itself when it is told to."""
