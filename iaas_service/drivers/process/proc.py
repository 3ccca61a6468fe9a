"""What the kernel says of processes, and telling them to end.

A process is named by its pid and the moment it started, so that another one that got the same pid
is never taken for it, nor killed in its stead.  Linux only: proc(5), pidfd_open(2).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final, Self

_PROC: Final = Path("/proc")
_BOOT_ID: Final = _PROC / "sys/kernel/random/boot_id"
# Fields of /proc/PID/stat behind the name in brackets, which may hold anything.
_STATE: Final = 0
_START: Final = 19


class Life(Enum):
    """What a process is doing, as far as anybody asks."""

    RUNNING = auto()
    STOPPED = auto()
    """By a signal: it will go on when told so."""
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this boot: its pid, and its start in ticks since then."""

    pid: int
    start: int

    @classmethod
    def of_pid(cls, pid: int) -> Self | None:
        """Whoever has this pid now."""
        stat = _stat(pid)
        return cls(pid, int(stat[_START])) if stat else None

    def life(self) -> Life:
        """What it is doing now; one that ended and waits to be reaped has ended."""
        stat = _stat(self.pid)
        if stat is None or int(stat[_START]) != self.start or stat[_STATE] in "ZXx":
            return Life.ENDED
        return Life.STOPPED if stat[_STATE] == "T" else Life.RUNNING

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process, which leads a session, and to its group."""
        if self.life() is not Life.ENDED:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def reap(self) -> int | None:
        """Its status, as waitpid(2) gives it; None when it is no child of ours that ended."""
        if Process.of_pid(self.pid) != self:
            return None  # reaped already, and its pid may be that of somebody else's child
        with suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return status if pid else None
        return None


def parse_birth(text: str) -> Process | None:
    """The process that wrote its boot id and its own stat line; None when another boot ended it."""
    boot_id, _, stat = text.partition("\n")
    if boot_id != boot():
        return None
    pid = int(stat.partition(" ")[0])
    fields = stat.rpartition(")")[2].split()
    if pid <= 1:
        # To signal the group of 1, or of 0, is to signal everybody.
        raise ValueError("no VM has such a pid")
    return Process(pid, int(fields[_START]))


def boot() -> str:
    """The id of this boot of the machine."""
    return _BOOT_ID.read_text().strip()


def holders(mark: str) -> Iterator[Process]:
    """All processes of ours that bear `mark` (NAME=value) in the environment they started with."""
    wanted = mark.encode()
    for process, environment in _environments():
        if wanted in environment:
            yield process


def at_home(root: str) -> Iterator[tuple[str, Process]]:
    """Processes of VMs that were started beneath this folder and hold their lock still, each with
    its VM's id.
    """
    for process, environment in _environments():
        names = [value[6:] for value in environment if value.startswith(b"VM_ID=")]
        for vm_id in {os.fsdecode(name) for name in names if name}:
            if f"HOME={root}/{vm_id}".encode() in environment and _holds_lock(process, vm_id):
                yield vm_id, process


def _environments() -> Iterator[tuple[Process, Sequence[bytes]]]:
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            environment = (entry / "environ").read_bytes().split(b"\0")
            process = Process.of_pid(int(entry.name))
            if process:
                yield process, environment


def _holds_lock(process: Process, vm_id: str) -> bool:
    """By the last two names of what it has open: the folder may have been renamed or removed."""
    with suppress(OSError):
        for entry in (_PROC / str(process.pid) / "fd").iterdir():
            with suppress(OSError):
                path = str(entry.readlink()).removesuffix(" (deleted)")
                if path.endswith(f"/{vm_id}/alive"):
                    return True
    return False


def kill(process: Process) -> None:
    """Kill exactly this process."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(process.pid)
        try:
            if process.life() is not Life.ENDED:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def describe(status: int) -> str:
    """How a process ended, for people."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _stat(pid: int) -> list[str] | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        text = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    return text.rpartition(b")")[2].decode().split() or None
