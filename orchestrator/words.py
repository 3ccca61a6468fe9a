"""Pure: how VMs, times and probes are put into words for people.

Called by whoever makes a sentence; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from .model import Probe, VmId


def probe_words(probes: Mapping[VmId, Probe]) -> dict[VmId, tuple[str, str]]:
    """Verdict and message of every probe."""
    return {vm_id: (each.verdict.name, each.message) for vm_id, each in probes.items()}
