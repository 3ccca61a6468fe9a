"""Processes that outlive whoever started them: found again, and ended, by their pid files.

Each is the first of a group of its own, so that none of its children is left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .place import Place

# What was killed ends at once, but for a machine that has no time for it.
_DYING_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """How a process is started."""

    name: str
    command: tuple[str | Path, ...]
    environment: Mapping[str, str | Path] = field(default_factory=dict)


class NotReady(Exception):
    """Something did not start, or not in time; says what, and where to read why."""


def start(place: Place, daemon: Daemon) -> None:
    """Run it, unless it runs.  It belongs to nobody: who started it may end."""
    if is_running(place, daemon.name):
        return
    place.run(daemon.name).unlink(missing_ok=True)
    with place.log(daemon.name).open("ab") as log:
        # The shell ends at once, so that there is no child that somebody would have to wait for.
        done = subprocess.run(
            ["sh", "-c", 'setsid "$@" >&2 & echo $!', "sh", *daemon.command],
            env={**_environment(), **daemon.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=place.folder,
            check=True,
        )
    # In one go: whoever looks meanwhile sees all of it or nothing.
    new = place.run(f"{daemon.name}.new")
    new.write_bytes(done.stdout)
    new.replace(_pid_file(place, daemon.name))


def _environment() -> dict[str, str]:
    """Little: neither the virtual environment nor the user's own cloud is of concern."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def stop(place: Place, *names: str, patience: float = 10.0) -> None:
    """End these and all their children: in order, and by force when it takes too long."""
    pids = {name: pid for name in names if (pid := _pid(place, name))}
    for pid in pids.values():
        _send(os.kill, pid, signal.SIGTERM)
        _send(os.kill, pid, signal.SIGCONT)
    deadline = time.monotonic() + patience
    while any(map(_lives, pids.values())) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids.values():
        _send(os.killpg, pid, signal.SIGKILL)
    # Whoever is started in its place wants its port.
    deadline = time.monotonic() + _DYING_SECONDS
    while any(map(_lives, pids.values())) and time.monotonic() < deadline:
        time.sleep(0.05)
    for name in pids:
        _pid_file(place, name).unlink()


def suspend(place: Place, name: str) -> None:
    """Let it stand still, with its connections open."""
    _send(os.kill, _pid_of(place, name), signal.SIGSTOP)


def resume(place: Place, name: str) -> None:
    """Let it go on, if it stands still."""
    if (pid := _pid(place, name)) is not None:
        _send(os.kill, pid, signal.SIGCONT)


def names(place: Place) -> list[str]:
    """All that were started and not stopped."""
    return sorted(file.stem for file in place.run("").glob("*.pid"))


def is_running(place: Place, name: str) -> bool:
    """Whether its first process is there."""
    pid = _pid(place, name)
    return pid is not None and _lives(pid)


def stands_still(place: Place, name: str) -> bool:
    """Whether it is suspended."""
    pid = _pid(place, name)
    return pid is not None and _state(pid) == "T"


def wait(
    place: Place, name: str, what: str, is_so: Callable[[], bool], *, patience: float = 300.0
) -> None:
    """Until it is so, while that process runs."""
    deadline = time.monotonic() + patience
    while not is_so():
        if not is_running(place, name):
            raise NotReady(f"{name} has ended before {what}\n{_last_words(place, name)}")
        if time.monotonic() > deadline:
            raise NotReady(f"not within {patience:.0f} s: {what}\n{_last_words(place, name)}")
        time.sleep(0.1)


def _last_words(place: Place, name: str) -> str:
    log = place.log(name)
    return f"--- the end of {log}\n{log.read_text(errors='replace')[-3000:]}"


def _pid_file(place: Place, name: str) -> Path:
    return place.run(f"{name}.pid")


def _pid(place: Place, name: str) -> int | None:
    try:
        return int(_pid_file(place, name).read_text())
    except FileNotFoundError:
        return None


def _pid_of(place: Place, name: str) -> int:
    pid = _pid(place, name)
    if pid is None:
        raise NotReady(f"{name} does not run")
    return pid


def _lives(pid: int) -> bool:
    """A process that has ended may stay as a zombie: who should have waited for it is gone."""
    return _state(pid) not in {"", "Z"}


def _state(pid: int) -> str:
    """The kernel's letter for it; none for a process that is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _send(send: Callable[[int, int], None], pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        send(pid, number)
