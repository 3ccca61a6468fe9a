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

Touched = Terminate | Repair | Keep

_FOR_FAILURE = {Reason.DEAD, Reason.UNHEALTHY, Reason.BOOT_TIMEOUT}
_WITHOUT_CONSOLE = {VmState.TERMINATED, VmState.DELETING}


async def known_of(
    steps: Sequence[Touched], order: Order, hands: Hands
) -> Mapping[VmId, Mapping[str, str]]:
    """What speaks against each VM that is touched because it failed."""
    failed = [step.vm for step in steps if _has_failed(step)]
    consoles = await asyncio.gather(*(_console(vm, order, hands) for vm in failed))
    return {
        vm.vm_id: {
            **against(order.plan.memory.vms.get(vm.vm_id), order.seen.probes.get(vm.vm_id)),
            **console,
        }
        for vm, console in zip(failed, consoles, strict=True)
    }


def _has_failed(step: Touched) -> bool:
    return isinstance(step, Repair) or step.reason in _FOR_FAILURE


async def _console(vm: Vm, order: Order, hands: Hands) -> Mapping[str, str]:
    if not order.seen.cloud.has_console or vm.state in _WITHOUT_CONSOLE:
        return {}
    text = await hands.iaas.console(order.provider, order.preset, vm.vm_id, CONSOLE_LINES)
    return {"console": text or "the console could not be read, or is empty"}
