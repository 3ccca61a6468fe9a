"""Consoles of VMs, read beside the VMs themselves: bounded in time, number and size.

The servicer asks.  What a VM says may be anything: it is cleaned before it is shown, and never
stands in a log.  A console that fails or is slow is empty; it is no reason to show no VM.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from vmshepherd_kit import log
from vmshepherd_kit.errors import BadRequest, ShepherdError, Violation
from vmshepherd_kit.tasks import hear

from .domain import Vm, VmId
from .port import Consoles, Trait
from .providers import Provider

MOST_LINES: Final = 200
_PATIENCE: Final = timedelta(seconds=2)
_BYTES: Final = 16 * 1024
# So many in one answer: a client of another language takes 4 MiB.
_CONSOLES: Final = 64
# Of what a driver gives, no more is looked at: most of it may be what is removed.
_LOOKED_AT: Final = 4 * _BYTES
# Colours and cursors of ECMA-48, which would leave their letters behind.
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")

_log = log.get("iaas")


def require_lines(lines: int) -> None:
    """Refuse a number of lines that nobody shows."""
    if not 0 <= lines <= MOST_LINES:
        sentence = f"must be 0 to {MOST_LINES}"
        raise BadRequest(
            f"console_lines {sentence}, and is {lines}",
            violations=[Violation("console_lines", sentence)],
        )


async def read(
    provider: Provider, found: Sequence[Vm | ShepherdError], *, lines: int, left: timedelta
) -> Mapping[VmId, str]:
    """The consoles that can be read by the time that is left, and within 2 s at any rate."""
    cloud = provider.cloud
    vms = [each for each in found if isinstance(each, Vm)][:_CONSOLES]
    if not lines or not vms or Trait.CONSOLE not in cloud.traits or not isinstance(cloud, Consoles):
        return {}
    tasks = {asyncio.create_task(cloud.console(vm, lines)): vm.vm_id for vm in vms}
    try:
        await asyncio.wait(tasks, timeout=min(left, _PATIENCE).total_seconds())
    finally:
        for task in tasks:
            # Not waited for: whoever does not heed a cancellation would hold up the VMs.
            task.cancel()
            task.add_done_callback(hear)
    told = {vm_id: _told(provider, vm_id, task) for task, vm_id in tasks.items()}
    return {vm_id: shown(text, lines) for vm_id, text in told.items()}


def shown(text: str, lines: int) -> str:
    """The last lines of what a VM said, fit for a terminal and for the wire."""
    clean = _ESCAPES.sub("", text[-_LOOKED_AT:])
    last = [_printable(line) for line in clean.rstrip().split("\n")[-lines:]]
    whole = "\n".join(last).encode()
    if len(whole) <= _BYTES:
        return whole.decode()
    cut = whole[-_BYTES:].decode(errors="ignore")
    # A line that lost its beginning would be read as a whole one; of a single line there is no
    # better part than its end.
    return cut.partition("\n")[2] or cut


def _printable(line: str) -> str:
    return "".join(c for c in line.replace("\t", " ") if c.isprintable())


def _told(provider: Provider, vm_id: VmId, task: asyncio.Task[str]) -> str:
    error = None if not task.done() or task.cancelled() else task.exception()
    if task.done() and not task.cancelled() and error is None:
        return task.result()
    # By its kind only: the words of an error may be those of the console.
    kind = type(error).__name__ if error else "too slow"
    _log.debug("console not read", provider=provider.name, vm_id=vm_id, why=kind)
    return ""
