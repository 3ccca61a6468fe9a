"""A VM as this service knows it: its facts, its folder, its process; read, it becomes a `Vm`.

`cloud` holds one for each VM.  Reading changes nothing and asks nobody but /proc and the folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from vmshepherd_kit.errors import AlreadyExists

from ... import marker
from ...domain import Address, Order, Vm, VmState
from . import proc
from .folder import Facts, Folder, fingerprint
from .proc import Life, Process


@dataclass(kw_only=True, slots=True, eq=False)
class Machine:
    """One VM."""

    facts: Facts
    folder: Folder
    process: Process | None
    """The one started last; None while it has not yet said who it is."""
    watched: Process | None = None
    """The process whose end we shall hear of."""
    doing: VmState | None = None
    """What we do to it at this moment."""

    def read(self) -> Vm:
        """The VM as it is now."""
        state, words = self._state()
        fault = self.folder.end() if state is VmState.TERMINATED else ""
        edited = self.folder.metadata()
        is_locked = edited is None
        if is_locked:
            # Whoever edits it may be about to protect the VM.
            fault = fault or "metadata.json is unreadable: protected until it is mended"
        own = {key: self.facts.metadata[key] for key in marker.KEYS}
        metadata = {**(self.facts.metadata if edited is None else edited), **own}
        return vm_of(self.facts, state, words, metadata=metadata, fault=fault, locked=is_locked)

    def is_lost(self) -> bool:
        """Whether somebody removed the folder, and the process has ended."""
        is_over = self.process is None or self.process.life() is Life.ENDED
        return is_over and not self.doing and not self.folder.path.exists()

    def current_process(self) -> Process | None:
        """Its process, which may have said only now who it is."""
        self.process = self.process or self.folder.process()
        return self.process

    def kill_rest(self) -> bool:
        """Kill what its process left behind, wherever it hides; the lock tells that there is
        something.  False once there is nothing.
        """
        is_alive = self.folder.is_alive()
        if is_alive:
            for process in proc.holders(f"VM_ID={self.facts.vm_id}"):
                proc.kill(process)
        return is_alive

    def _state(self) -> tuple[VmState, str]:
        if self.doing:
            return self.doing, self.doing.name.lower()
        process = self.current_process()
        if process is None:
            is_alive = self.folder.is_alive()
            return (VmState.PENDING, "starting") if is_alive else (VmState.TERMINATED, "ended")
        match process.life():
            case Life.RUNNING:
                return VmState.RUNNING, f"pid {process.pid}"
            case Life.STOPPED:
                return VmState.STOPPED, f"pid {process.pid} stopped by a signal"
            case Life.ENDED:
                return VmState.TERMINATED, "ended"


def vm_of(  # one field each: all but three are told by name
    facts: Facts,
    state: VmState,
    words: str,
    *,
    metadata: Mapping[str, str] | None = None,
    fault: str = "",
    locked: bool = False,
) -> Vm:
    """A VM of these facts in that state."""
    return Vm(
        vm_id=facts.vm_id,
        name=facts.name,
        state=state,
        cloud_state=words,
        fault=fault,
        create_time=facts.created,
        addresses=(Address(ip=facts.address, network="loopback"),),
        image=facts.image,
        flavor=facts.flavor,
        zone=facts.zone,
        host=os.uname().nodename,
        key_name=facts.key_name,
        metadata=facts.metadata if metadata is None else metadata,
        locked=locked,
    )


def removed(facts: Facts) -> Vm:
    """A VM that was here and is no more."""
    return vm_of(facts, VmState.TERMINATED, "removed")


def require_same(facts: Facts, order: Order) -> None:
    """Refuse an order for another VM under the same request id."""
    if facts.fingerprint != fingerprint(order):
        raise AlreadyExists(
            "the request id was used for another VM",
            reason="REQUEST_ID_REUSED",
            vm_id=facts.vm_id,
        )
