"""Starting the process of a VM, exactly once, and what it finds in its environment.

The process is a child of the service but not its own: it leads a session, keeps the lock of its
folder open for as long as it lives, and nobody waits for it.  Blocks, shortly.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from vmshepherd_kit.errors import NotFound, Unavailable, Violation

from ... import marker
from ...domain import Spec
from .folder import Facts, Folder, no_room
from .options import Flavor, ProcessOptions
from .proc import Process

# The process itself writes down who it is before it becomes the command: a service that dies at any
# moment in between leaves nothing unknown.  One printf is one write.
_BIRTH: Final = (
    "read -r boot < /proc/sys/kernel/random/boot_id && read -r stat < /proc/$$/stat && "
    'printf "%s\\n%s\\n" "$boot" "$stat" > birth && exec "$@"'
)
_GUEST: Final = Path(__file__).with_name("guest.py")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def command(options: ProcessOptions, spec: Spec, *, name: str, address: str) -> list[str]:
    """The flavor's command, else the user data if they are a script, else the web server."""
    chosen = flavor(options, spec).command
    if chosen:
        return chosen
    if spec.user_data.startswith("#!"):
        return ["./user-data"]
    # -I and -S: nothing of the environment or of installed packages is needed or trusted.
    return [sys.executable, "-I", "-S", str(_GUEST), name, address, str(options.port)]


def flavor(options: ProcessOptions, spec: Spec) -> Flavor:
    """The flavor of a VM.  NotFound."""
    if not options.flavors:
        return Flavor()
    if spec.flavor not in options.flavors:
        known = ", ".join(options.flavors)
        sentence = f"there is no flavor {spec.flavor!r}; there are: {known}"
        raise NotFound(
            sentence,
            reason="FLAVOR_NOT_FOUND",
            violations=[Violation("spec.flavor", sentence)],
        )
    return options.flavors[spec.flavor]


def rebuilt(options: ProcessOptions, facts: Facts, spec: Spec, *, spec_hash: str) -> Facts:
    """What a VM is once it is rebuilt: of its own flavor, as that is by now.  NotFound."""
    own = replace(spec, flavor=facts.flavor)
    return replace(
        facts,
        image=spec.image or facts.image,
        metadata=marker.rewritten(facts.metadata, spec_hash=spec_hash),
        argv=command(options, own, name=facts.name, address=facts.address),
        env=flavor(options, own).env,
    )


def start(folder: Folder, facts: Facts, environment: Mapping[str, str]) -> Process:
    """Start it.  NoCapacity or Unavailable: no process was started."""
    try:
        with folder.locked() as lock, no_room(), _log(folder) as log:
            # vfork(2), which preexec_fn would forbid: gRPC's threads never see a fork.
            child = _Outliving(
                ["/bin/sh", "-c", _BIRTH, "sh", *facts.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder.path,
                env=dict(environment),
                start_new_session=True,
                pass_fds=(lock,),
            )
    except BlockingIOError as e:
        raise Unavailable("a process of the VM is alive still") from e
    except OSError as e:
        raise Unavailable(f"the VM's folder cannot be used: {e.strerror}") from e
    process = Process.of_pid(child.pid)
    if process is None:
        raise Unavailable("the process was gone as soon as it was started")
    return process


def environment(folder: Folder, facts: Facts, port: int) -> dict[str, str]:
    """Little, and nothing of the service's own, which may hold secrets."""
    return {
        "PATH": os.environ.get("PATH", _PATH),
        "HOME": str(folder.path),
        "LANG": "C.UTF-8",
        "VM_ID": facts.vm_id,
        "VM_NAME": facts.name,
        "VM_ADDRESS": facts.address,
        "VM_PORT": str(port),
        "VM_PRESET": facts.metadata[marker.PRESET],
        "VM_USER_DATA": str(folder.path / "user-data"),
        **facts.env,
    }


class _Outliving(subprocess.Popen[bytes]):
    def __del__(self) -> None:  # type: ignore[override,unused-ignore]
        """It lives on without us: no warning, and no reaping behind our back."""


@contextmanager
def _log(folder: Folder) -> Iterator[int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(folder.path / "log", flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
