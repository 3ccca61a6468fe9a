"""One process that a test started: its log, its end, and its end by force."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

VMSHEPHERD = str(Path(sys.executable).with_name("vmshepherd"))
_PATIENCE_SECONDS = 60


class Daemon:
    """Started at once, in a session of its own; what it says goes into its log."""

    def __init__(
        self, command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self.command = list(command)
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process itself."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Ask it to end, and wait for it; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for it to end by itself; its exit code."""
        return self._process.wait(_PATIENCE_SECONDS)

    def kill(self) -> None:
        """End it, as a power failure would."""
        self._process.kill()
        self._process.wait(_PATIENCE_SECONDS)

    def hang_up(self) -> None:
        """SIGHUP: read your configuration."""
        self._process.send_signal(signal.SIGHUP)

    def kill_with_all(self) -> None:
        """End it and whatever it started in its own session, unless it has ended by itself."""
        if self.is_alive:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(_PATIENCE_SECONDS)

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")
