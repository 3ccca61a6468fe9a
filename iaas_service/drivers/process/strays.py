"""VMs that run and whose folders are gone: a root that was removed, renamed or not mounted.

The driver looks for them once, when it starts, and asks after them with each listing.  As long as
one runs the list of VMs is not whole: to count it as gone would be to make it a second time.
"""

from __future__ import annotations

from vmshepherd_kit import log

from . import proc
from .folder import Root
from .proc import Life, Process

_log = log.get("iaas.process")


class Strays:
    """Those beneath one root."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._found: dict[str, Process] = {}

    def find(self) -> None:
        """Look for them, in /proc."""
        known = self._root.names()
        for vm_id, process in proc.at_home(str(self._root.path)):
            if vm_id not in known:
                self._found[vm_id] = process
                _log.warning("vm runs without its folder", vm_id=vm_id, pid=process.pid)

    def returned(self) -> list[str]:
        """Those whose folders came back; they are strays no more, and neither are those that
        ended.
        """
        back = [vm_id for vm_id in self._found if self._root.folder(vm_id).path.exists()]
        over = [vm_id for vm_id, process in self._found.items() if process.life() is Life.ENDED]
        for vm_id in {*back, *over}:
            del self._found[vm_id]
        return back

    def reasons(self) -> dict[str, str]:
        """Why each of them keeps the list from being whole."""
        return {
            vm_id: f"VM {vm_id} runs (pid {process.pid}), and its folder in {self._root.path} is "
            "gone: put it back, or end that process"
            for vm_id, process in self._found.items()
        }
