"""PostgreSQL servers of Debian's package for tests and benches: real, on loopback, gone afterwards.

    with postgres.running() as server:                   # blocks: on an event loop, use to_thread
        parse(server.options(schema="mine"), Options)    # host, port, database, user, password
        server.stop(immediate=True)                      # a crash; server.start() recovers
        with server.with_standby() as standby: ...       # standby.promote(); server.follow(standby)

The fixtures of tests/contract/conftest.py give a test a server and a schema of its own.
Data lies in a folder beneath /tmp, for the server's user must reach it; fsync is on.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.support import ports

DATABASE: Final = "vmshepherd"
USER: Final = "shepherd"
PASSWORD: Final = "pass-of-the-suite"

_HOST: Final = "127.0.0.1"
_SUPERUSER: Final = "postgres"
# Below the ports that the kernel gives to outgoing connections, so that a server finds its own
# free again.
_PORTS: Final = ports.free(11_000, 18_000)
_PATIENCE: Final = 60.0

_SETTINGS: Final = {
    "listen_addresses": _HOST,
    "fsync": "on",
    "shared_buffers": "16MB",
    "wal_keep_size": "64MB",
    "wal_retrieve_retry_interval": "200ms",
    "log_line_prefix": "%m [%p] %a ",
}
_ACCESS: Final = """
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
"""


def binaries() -> Path | None:
    """Where the newest installed server's programs are: Debian keeps them off the PATH."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(found, key=lambda path: int(path.parts[-3]), default=None)
    on_path = shutil.which("initdb")
    return newest.parent if newest else Path(on_path).parent if on_path else None


def missing() -> str | None:
    """How to get a server, where there is none."""
    if binaries() is None:
        return "PostgreSQL's server is not installed: apt-get install postgresql"
    return None


def free_port() -> int:
    """A port on which nobody listens, given to nobody else by this process."""
    return next(_PORTS)


@contextmanager
def running(**settings: str) -> Iterator[Server]:
    """A fresh server that runs, with the suite's database and user; `settings` are the server's."""
    with _placed(settings) as server:
        server.initialise()
        server.start()
        server.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        server.sql(f"CREATE DATABASE {DATABASE} OWNER {USER}")
        yield server


@contextmanager
def _placed(settings: dict[str, str]) -> Iterator[Server]:
    """A server that has a folder and a port, and nothing else yet."""
    folder = Path(tempfile.mkdtemp(prefix="vmshepherd-postgres-", dir="/tmp"))
    server = Server(folder, free_port(), settings)
    try:
        if (user := _system_user()) is not None:
            shutil.chown(folder, user)
        yield server
    finally:
        server.stop(immediate=True)
        shutil.rmtree(folder)


def _system_user() -> str | None:
    """Whom a server runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class Server:
    """One server: a data folder, a port, and a process while it runs."""

    host: Final = _HOST

    def __init__(self, folder: Path, port: int, settings: dict[str, str]) -> None:
        self.folder = folder
        self.port = port
        self.name = f"server_{port}"
        self._data = folder / "data"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def options(self, **more: Any) -> dict[str, Any]:
        """Options of the driver for this server."""
        return {
            "host": self.host,
            "port": self.port,
            "database": DATABASE,
            "user": USER,
            "password": PASSWORD,
            **more,
        }

    # Its life

    def initialise(self) -> None:
        """Make an empty data folder."""
        self._run("initdb", "-D", self._data, "-U", _SUPERUSER, "-A", "trust", "-E", "UTF8",
                  "--locale=C", "--no-sync")  # fmt: skip
        self._run("tee", self._data / "pg_hba.conf", said=_ACCESS)

    def start(self) -> None:
        """Run, and take connections; after a crash it has recovered then."""
        if self.is_running:
            return
        given = {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        settings = _SETTINGS | given | self._settings
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_system_user(), self._program("postgres"), "-D", self._data, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                start_new_session=True,
            )
        self._until(self.is_ready, "it takes connections")

    def stop(self, *, immediate: bool = False) -> None:
        """End it: in order, or as a crash does (`immediate`); standing still is no hindrance."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self._process.wait(_PATIENCE)
        self._process = None

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start."""
        self.stop(immediate=immediate)
        self.start()

    @contextmanager
    def set_to(self, **settings: str) -> Iterator[None]:
        """Restarted with these settings, and with its own ones behind the block."""
        before = self._settings
        try:
            self._settings = before | settings
            self.restart()
            yield
        finally:
            self._settings = before
            self.restart()

    def pause(self) -> None:
        """Let all of its processes stand still; connections stay open and silent."""
        for pid in self._pids():
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        for pid in reversed(self._pids()):
            _signal(pid, signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        """Whether its process is there; it may stand still."""
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        done = self._call("pg_isready", "-h", _HOST, "-p", str(self.port), "-q")
        return done.returncode == 0

    def said(self) -> str:
        """Its log."""
        return (self.folder / "log").read_text(errors="replace")

    # What is asked of it

    def sql(self, statement: str, *, database: str = "postgres") -> str:
        """What a statement of the superuser answers: rows of fields with `|` between them."""
        done = self._run(
            "psql", "-h", self.folder, "-p", str(self.port), "-U", _SUPERUSER, "-d", database,
            "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement,
        )  # fmt: skip
        return done.stdout.strip()

    def terminate_backends(self) -> int:
        """End all connections of the suite's user; how many there were."""
        return int(
            self.sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                f"WHERE usename = '{USER}'"
            )
        )

    # Two of them

    @contextmanager
    def with_standby(self, *, synchronous: bool = False) -> Iterator[Server]:
        """A standby that runs; a synchronous one confirms each commit."""
        with _placed(self._settings) as standby:
            standby.follow(self, synchronous=synchronous)
            yield standby

    def follow(self, primary: Server, *, synchronous: bool = False) -> None:
        """Become a standby of that one, anew: whatever this one had is gone."""
        self.stop(immediate=True)
        shutil.rmtree(self._data, ignore_errors=True)
        source = f"host={primary.folder} port={primary.port} user={_SUPERUSER}"
        self._run("pg_basebackup", "-D", self._data, "-R", "-X", "stream", "-c", "fast",
                  "--no-sync", "-d", f"{source} application_name={self.name}")  # fmt: skip
        # Copied from the primary, where it names the primary's own standby.
        self._run("tee", "-a", self._data / "postgresql.auto.conf",
                  said="\nsynchronous_standby_names = ''\n")  # fmt: skip
        self.start()
        self._until(lambda: primary.is_followed_by(self), "it follows")
        if synchronous:
            primary.confirm_by(self)

    def is_followed_by(self, standby: Server) -> bool:
        """Whether that standby receives what is written here."""
        found = self.sql(
            "SELECT count(*) FROM pg_stat_replication "
            f"WHERE application_name = '{standby.name}' AND state = 'streaming'"
        )
        return found != "0"

    def caught_up_with(self, primary: Server) -> None:
        """Wait until this standby shows all that is written there now."""
        reached = primary.sql("SELECT pg_current_wal_lsn()")
        shown = f"SELECT pg_last_wal_replay_lsn() >= '{reached}'"
        self._until(lambda: self.sql(shown) == "t", "it has caught up")

    def confirm_by(self, standby: Server | None) -> None:
        """Answer a commit only when that standby has it too; None: nobody is waited for."""
        name = standby.name if standby else ""
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        self.sql("SELECT pg_reload_conf()")
        if standby:
            said = "SELECT sync_state FROM pg_stat_replication"
            self._until(lambda: "sync" in self.sql(said).split(), "it confirms")

    def promote(self) -> None:
        """End being a standby: this one takes writes now."""
        self.sql(f"SELECT pg_promote(true, {_PATIENCE:.0f})")

    # How it is done

    def _program(self, name: str) -> str:
        folder = binaries()
        assert folder is not None, missing()
        return str(folder / name) if (folder / name).exists() else name

    def _call(
        self, program: str, *arguments: str | Path, said: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*_as_system_user(), self._program(program), *arguments],
            input=said,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            timeout=_PATIENCE,
        )

    def _run(
        self, program: str, *arguments: str | Path, said: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = self._call(program, *arguments, said=said)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
        return done

    def _until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not is_so():
            assert self.is_running, f"the server has ended before {what}:\n{self.said()[-4000:]}"
            assert time.monotonic() < deadline, f"not in time: {what}\n{self.said()[-4000:]}"
            time.sleep(0.02)

    def _pids(self) -> list[int]:
        """Of the first process, then of its children: in the order in which they are paused."""
        if self._process is None or self._process.poll() is not None:
            return []
        first = self._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _as_system_user() -> list[str]:
    """What to put before a command.  Popen's own `user` makes it fork, which gRPC, where it runs in
    this process, does not bear.
    """
    if (user := _system_user()) is None:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]
