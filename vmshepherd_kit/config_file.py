"""The configuration file: read once, strictly, and handed out section by section.

`entry` and the command read it; each service parses its own section with `settings.parse`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What all services of one suite have in common."""

    suite_id: str
    """Written into every VM's marker: two suites never touch each other's VMs."""
    state_dir: Path
    """Where drivers keep what must survive a restart; absolute."""
    base_dir: Path
    """What relative paths of the configuration are relative to; absolute."""
    embedded: bool
    """True when the whole suite runs in one process."""
