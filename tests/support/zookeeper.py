"""A real ZooKeeper ensemble of one node or three, of Debian's jars, on ports of its own.

    with Ensemble(folder, nodes=3) as ensemble:
        ensemble.servers   # what a client connects to
        ensemble.kill(ensemble.leader())

Within pytest `ensemble_of_this_run` keeps one for all tests of a process; each test takes a room
(a chroot) of its own.  Nothing here asks a client library: nodes are asked by four-letter words.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.support import ports

_JARS: Final = Path("/usr/share/java")
_NEEDED: Final = ("zookeeper.jar", "zookeeper-jute.jar", "slf4j-simple.jar")
# Without these there is no TLS; Debian's ZooKeeper does not name them.
_FOR_TLS: Final = ("netty-codec.jar", "netty-resolver.jar")
_MAIN: Final = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_JVM: Final = (
    # A node keeps its last 500 transactions in memory, and those of large batches have a megabyte.
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dzookeeper.preAllocSize=1024",
    "-Dzookeeper.nio.numWorkerThreads=2",
    "-Dzookeeper.nio.numSelectorThreads=1",
)
TICK_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 60

# Below the ports that the kernel gives to outgoing connections, so that a node that is away finds
# its port free.
_PORTS = ports.free(30_000, 32_700)


# Linux ends a process that is bound to its parent with the thread that started it: this one stays.
_STARTER = ThreadPoolExecutor(1)


def missing() -> str | None:
    """How to get what an ensemble needs, or None if all is there."""
    if shutil.which("java") and all((_JARS / jar).exists() for jar in _NEEDED):
        return None
    return (
        "ZooKeeper is missing: `apt-get install -y --no-install-recommends default-jre-headless "
        "libzookeeper-java`"
    )


class Ensemble:
    """Nodes 1 to `nodes`; each is a process of its own and may be killed, paused and restarted.

    `settings` are more lines for the file of each node, `jvm` more options for each process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 1,
        settings: Mapping[str, str] | None = None,
        jvm: Sequence[str] = (),
    ) -> None:
        self.nodes = {
            number: _Node(number, folder / f"node-{number}", _free_ports(4))
            for number in range(1, nodes + 1)
        }
        self._rooms = itertools.count(1)
        for node in self.nodes.values():
            node.prepare(list(self.nodes.values()), settings or {}, jvm)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def servers(self) -> str:
        """What a client connects to."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes.values())

    @property
    def secure_servers(self) -> str:
        """Where those listen that were given a key by `settings`."""
        return ",".join(f"127.0.0.1:{node.secure_port}" for node in self.nodes.values())

    def room(self) -> str:
        """A path that nobody uses yet."""
        return f"/room-{os.getpid()}-{next(self._rooms)}"

    def start(self) -> None:
        """Start each node that does not run, and wait until all serve."""
        for node in self.nodes.values():
            node.start()
        self.wait_serving()

    def stop(self) -> None:
        """End all nodes, paused ones too."""
        for node in self.nodes.values():
            node.kill()

    def kill(self, number: int) -> None:
        """End a node as a power failure does."""
        self.nodes[number].kill()

    def restart(self, number: int) -> None:
        """Kill a node, start it again with its data, and wait until it serves."""
        self.kill(number)
        self.nodes[number].start()
        self._wait_for_node(number)

    def pause(self, *numbers: int) -> None:
        """Stop nodes without their knowledge: they neither answer nor close connections."""
        for number in numbers:
            self.nodes[number].signal(signal.SIGSTOP)

    def resume(self, *numbers: int) -> None:
        """Let nodes go on from where they were paused."""
        for number in numbers:
            self.nodes[number].signal(signal.SIGCONT)

    def leader(self) -> int:
        """Who leads (a node that stands alone leads itself); waits until somebody does."""
        found: list[int] = []

        # Asked once more, it might answer too late, or lead no more.
        def is_found() -> bool:
            found.extend(self._leading())
            return bool(found)

        self._wait(is_found, "somebody leads")
        return found[0]

    def followers(self) -> list[int]:
        """All but the leader."""
        leader = self.leader()
        return [number for number in self.nodes if number != leader]

    def wait_serving(self) -> None:
        """Until each node serves, which needs a leader."""
        for number in self.nodes:
            self._wait_for_node(number)

    def _leading(self) -> list[int]:
        leading = {"leader", "standalone"}
        return [number for number, node in self.nodes.items() if node.mode() in leading]

    def _wait_for_node(self, number: int) -> None:
        self._wait(lambda: self.nodes[number].mode() is not None, f"node {number} serves")

    def _wait(self, is_so: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while not is_so():
            if time.monotonic() > until:
                logs = "\n".join(node.last_words() for node in self.nodes.values())
                raise TimeoutError(f"not within {_PATIENCE_SECONDS} s: {what}\n{logs}")
            time.sleep(0.05)


class _Node:
    """One server: its folder, its ports and its process."""

    def __init__(self, number: int, folder: Path, ports: Sequence[int]) -> None:
        self.number = number
        self.port, self.secure_port, self._quorum_port, self._election_port = ports
        self._folder = folder
        self._command: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(
        self, members: Sequence[_Node], settings: Mapping[str, str], jvm: Sequence[str]
    ) -> None:
        """Write its files."""
        data = self._folder / "data"
        data.mkdir(parents=True)
        (data / "myid").write_text(f"{self.number}\n")
        own = {key: value.format(secure_port=self.secure_port) for key, value in settings.items()}
        lines = self._basics(data) | {m.name: m.address for m in members if len(members) > 1} | own
        file = self._folder / "zoo.cfg"
        file.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        jars = ":".join(str(_JARS / jar) for jar in (*_NEEDED, *_FOR_TLS))
        # Should the tests be killed, their nodes do not outlive them.
        bound = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self._command = [*bound, "java", *_JVM, *jvm, "-cp", jars, _MAIN, str(file)]

    @property
    def name(self) -> str:
        return f"server.{self.number}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._quorum_port}:{self._election_port}"

    def _basics(self, data: Path) -> dict[str, str]:
        return {
            "dataDir": str(data),
            "clientPort": str(self.port),
            "clientPortAddress": "127.0.0.1",
            "tickTime": str(int(TICK_SECONDS * 1000)),
            "initLimit": "20",
            "syncLimit": "4",
            "maxClientCnxns": "0",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "mntr,srvr,ruok",
        }

    def start(self) -> None:
        """Run it, unless it does."""
        if self._process and self._process.poll() is None:
            return
        self._process = _STARTER.submit(self._run).result()

    def _run(self) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it by force, and wait for it."""
        if self._process:
            self._process.kill()
            self._process.wait(_PATIENCE_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def mode(self) -> str | None:
        """`leader`, `follower` or `standalone`; None when it does not serve (within a second)."""
        answer = self.ask("srvr")
        found = [line for line in answer.splitlines() if line.startswith("Mode: ")]
        return found[0].removeprefix("Mode: ") if found else None

    def ask(self, word: str) -> str:
        """The answer to a four-letter word, "" if there is none."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(word.encode())
            return answer.read().decode()
        return ""

    def last_words(self) -> str:
        """The end of its log."""
        log = self._folder / "log"
        said = log.read_text(errors="replace")[-4000:] if log.exists() else "it never ran"
        return f"--- node {self.number}\n{said}"


_RUNNING: Final = pytest.StashKey[dict[int, Ensemble]]()


def ensemble_of_this_run(config: pytest.Config, *, nodes: int) -> Ensemble:
    """The ensemble of that size which all tests of this process share; all its nodes serve.

    Skips the test, saying how to get it, where ZooKeeper is not installed.
    """
    if lack := missing():
        pytest.skip(lack)
    running = config.stash.setdefault(_RUNNING, {})
    if nodes not in running:
        folder = Path(tempfile.mkdtemp(prefix="zookeeper-"))
        running[nodes] = Ensemble(folder, nodes=nodes)
        config.add_cleanup(lambda: _end(running.pop(nodes), folder))
    # A test before may have killed or paused some.
    running[nodes].resume(*running[nodes].nodes)
    running[nodes].start()
    return running[nodes]


def _end(ensemble: Ensemble, folder: Path) -> None:
    ensemble.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _free_ports(number: int) -> list[int]:
    return list(itertools.islice(_PORTS, number))
