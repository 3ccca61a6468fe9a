"""What is known against VMs before anything is done to them: their checks, and their consoles.

Called by `act`. It asks side by side and waits for some seconds at most; what cannot be read is
said to be so, and stops nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from .findings import against
from .hands import Hands, Order
from .model import Keep, Reason, Repair, Terminate, Vm, VmId, VmState

CONSOLE_LINES = 50
# So many consoles are read in one cycle: all of them are written down with one call.
MOST_CONSOLES = 64

Touched = Terminate | Repair | Keep

_FOR_FAILURE = {Reason.DEAD, Reason.UNHEALTHY, Reason.BOOT_TIMEOUT}
_UNREAD = "the console could not be read, or is empty"
_TOO_MANY = f"not read: more than {MOST_CONSOLES} VMs failed at once"
_WITHOUT_CONSOLE = {VmState.TERMINATED, VmState.DELETING}


async def known_of(
    steps: Sequence[Touched], order: Order, hands: Hands
) -> Mapping[VmId, Mapping[str, str]]:
    """What speaks against each VM that is touched because it failed."""
    failed = [step.vm for step in steps if _has_failed(step)]
    consoles = await _consoles(failed, order, hands)
    memories, probes = order.plan.memory.vms, order.seen.probes
    return {
        vm.vm_id: {
            **against(memories.get(vm.vm_id), probes.get(vm.vm_id)),
            "console": consoles.get(vm.vm_id, ""),
        }
        for vm in failed
    }


async def _consoles(failed: Sequence[Vm], order: Order, hands: Hands) -> Mapping[VmId, str]:
    """The end of each console; why not, where it could not be read; "" where there is none."""
    if not order.seen.cloud.has_console:
        return {}
    wanted = [vm.vm_id for vm in failed if vm.state not in _WITHOUT_CONSOLE]
    first, others = wanted[:MOST_CONSOLES], wanted[MOST_CONSOLES:]
    texts = await asyncio.gather(
        *(hands.iaas.console(order.provider, order.preset, vm_id, CONSOLE_LINES) for vm_id in first)
    )
    read = {vm_id: text or _UNREAD for vm_id, text in zip(first, texts, strict=True)}
    return read | dict.fromkeys(others, _TOO_MANY)


def _has_failed(step: Touched) -> bool:
    return isinstance(step, Repair) or step.reason in _FOR_FAILURE
