"""What tests ask of the operating system: processes by their folder, HTTP, limits, namespaces.

A VM's process works in its VM's folder, so that the folder tells whose it is; nothing here signals
a process that was not found so, or started by the test itself.
"""

from __future__ import annotations

import http.client
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

# Gives what follows a network of its own, in which not even loopback works.
_WITHOUT_NETWORK = (["unshare", "-n"], ["unshare", "-r", "-n"])
_OWN_MOUNTS = (["unshare", "-m"], ["unshare", "-r", "-m"])
# ioctl(2) SIOCSIFFLAGS: up (1) or down (0); what follows is run.
_LOOPBACK = """
import fcntl, os, socket, struct, sys
request = struct.pack("16sH14x", b"lo", int(sys.argv[1]))
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, request)
if sys.argv[2:]:
    os.execvp(sys.argv[2], sys.argv[2:])
"""
# Put before a command that has a network of its own.
WITH_LOOPBACK = [sys.executable, "-I", "-S", "-c", _LOOPBACK, "1"]


def processes_beneath(folder: Path) -> dict[int, Path]:
    """Pids of processes that work in this folder or beneath, each with where."""
    return {pid: where for pid, where in _working_places() if where.is_relative_to(folder)}


def kill_beneath(folder: Path) -> None:
    """Kill them all, those that they start meanwhile included."""
    while pids := processes_beneath(folder):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _working_places() -> Iterator[tuple[int, Path]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            # Gone meanwhile, or another user's.
            with suppress(OSError):
                yield int(entry.name), (entry / "cwd").readlink()


def body_of(address: str, port: int, *, seconds: float = 5) -> str:
    """What a GET of `/` answers there.  OSError when nobody does."""
    connection = http.client.HTTPConnection(address, port, timeout=seconds)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except http.client.HTTPException as e:
        raise ConnectionError(str(e)) from e
    finally:
        connection.close()


def use_up_descriptors(pid: int) -> tuple[int, int]:
    """Let a process open no further file; the limits that it had."""
    used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    lowest_free = next(number for number in range(len(used) + 1) if number not in used)
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    return resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, hard))


def without_network() -> list[str] | None:
    """What to put before a command so that it has no network; None where nobody lets us."""
    return _first_allowed(_WITHOUT_NETWORK)


def with_own_mounts() -> list[str] | None:
    """What to put before a command so that it may mount; None where nobody lets us."""
    return _first_allowed(_OWN_MOUNTS)


def cut_loopback(pid: int) -> None:
    """Take loopback away from a process that has a network of its own."""
    subprocess.run(
        [*enter(pid), sys.executable, "-I", "-S", "-c", _LOOPBACK, "0"], check=True, timeout=30
    )


def enter(pid: int) -> list[str]:
    """What to put before a command so that it runs in the network of that process."""
    own = Path("/proc/self/ns/user").readlink()
    is_same_user = Path(f"/proc/{pid}/ns/user").readlink() == own
    users = [] if is_same_user else ["--user", "--preserve-credentials"]
    return ["nsenter", "--target", str(pid), "--net", *users]


def _first_allowed(candidates: tuple[list[str], ...]) -> list[str] | None:
    return next((each for each in candidates if _is_allowed(tuple(each))), None)


@cache
def _is_allowed(command: tuple[str, ...]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
