"""Where a show of bench/openstack.py takes place: a real OpenStack, a project of its own, a suite.

The suite reaches the cloud through a proxy that writes down every request; whoever judges asks the
cloud itself. Nothing of the project, of the processes and of the folder outlives the block, however
it ends.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from iaas_service import marker
from tests.e2e.waiting import until
from tests.openstack import shared
from tests.openstack.cloud.api import Refused
from tests.openstack.cloud.place import Place
from tests.openstack.faults import Fault
from tests.openstack.gateway import Exchange
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy

SUITE: Final = "bench"
"""The id of every suite here."""

AWAY: Final = (Refused, OSError, ValueError)
"""What the bare API raises while the cloud is being hurt."""

_WORKERS: Final = 3
_EMPTYING: Final = 1800.0
_ID: Final = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
_SERVER: Final = re.compile(r"/servers/([0-9a-f-]{36})(/action)?(\?|$)")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the suite, and when it came."""

    at: float
    """On the monotonic clock."""
    time: float
    """Since 1970."""
    service: str
    method: str
    path: str
    body: bytes = field(repr=False)

    @property
    def server_id(self) -> str:
        """The server that it is about; "" for none."""
        found = _SERVER.search(self.path)
        return found[1] if found else ""

    @property
    def is_create(self) -> bool:
        """Whether it makes a server."""
        return self.method == "POST" and self.path.split("?")[0].endswith("/servers")

    @property
    def is_end(self) -> bool:
        """Whether it destroys a server, or its disk."""
        forced = b"forceDelete" in self.body or b"rebuild" in self.body
        return bool(self.server_id) and (self.method == "DELETE" or forced)

    @property
    def kind(self) -> str:
        """For people: what is asked, without ids."""
        if self.service == "compute" and "/servers/detail" in self.path:
            return "list changes" if "changes-since" in self.path else "list all, a page"
        path = re.sub(r"^/v[0-9.]+", "", _ID.sub("{id}", self.path.split("?")[0]))
        return f"{self.method} {self.service} {path or '/'}"


class Ledger(Proxy):
    """The proxy, and every request that came."""

    def __init__(self, place: Place, *, seed: int = 1) -> None:
        super().__init__(place, seed=seed)
        self.asked: list[Asked] = []

    def _judge(self, service: str, exchange: Exchange) -> Fault:
        body = exchange.body if exchange.path.endswith("/action") else b""
        moment = (time.monotonic(), time.time())
        self.asked.append(Asked(*moment, service, exchange.method, exchange.path, body))
        return super()._judge(service, exchange)

    def since(self, at: float) -> list[Asked]:
        """What was asked after a moment."""
        return [each for each in self.asked[:] if each.at > at]


@dataclass(frozen=True, slots=True)
class Seen:
    """A server as the bare API shows it."""

    server_id: str
    name: str
    status: str
    task: str
    metadata: dict[str, str]
    updated: str

    @property
    def preset(self) -> str:
        """Whose it is by its marker; "" of a foreign one, and of one whose marker is not whole."""
        found = marker.read(self.metadata, SUITE)
        return found.preset if found else ""

    @property
    def request_id(self) -> str:
        """The intent that it was made for; "" of a foreign one."""
        return self.metadata[marker.REQUEST] if self.preset else ""

    @property
    def is_going(self) -> bool:
        """Whether Nova is deleting it."""
        return self.task in {"deleting", "soft-deleting"} or self.status == "DELETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a show is given."""

    cloud: OpenStack
    project: Project
    ledger: Ledger
    folder: Path

    def options(self, **more: Any) -> dict[str, Any]:
        """Of the driver, through the proxy."""
        return {**self.project.credentials(self.ledger.auth_url), **more}

    def servers(self) -> list[Seen]:
        """All servers of the project, by the bare API, without the proxy."""
        told = self.project.api.get("compute", "/servers/detail")["servers"]
        return [
            Seen(
                each["id"],
                each.get("name", ""),
                each["status"],
                each.get("OS-EXT-STS:task_state") or "",
                each.get("metadata", {}),
                each.get("updated", ""),
            )
            for each in told
        ]

    def active(self) -> set[str]:
        """Ids of those that are ACTIVE, asked for as cheaply as can be."""
        told = self.project.api.get("compute", "/servers?status=ACTIVE")["servers"]
        return {each["id"] for each in told}

    def empty(self) -> None:
        """Delete all servers of the project, a few at a time, until none is left."""
        until(self._is_empty, "no server is left", seconds=_EMPTYING, pause=5.0)

    def _is_empty(self) -> bool:
        """Asked again and again: what the cloud still had to make comes late."""
        left = self.cloud.servers(self.project)
        with ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(self._delete, left))
        return not left

    def _delete(self, server_id: str) -> None:
        with suppress(*AWAY):
            self.project.delete(server_id)

    def orphans(self) -> list[str]:
        """Ports whose server is not there, or that a server has beyond its one."""
        servers = self.cloud.servers(self.project)
        ports = self.cloud.ports(self.project)
        lost = [
            f"port {port} of {vm or 'nobody'}" for port, vm in ports.items() if vm not in servers
        ]
        number = Counter(vm for vm in ports.values() if vm in servers)
        return lost + [f"{many} ports of {vm}" for vm, many in number.items() if many > 1]


@contextmanager
def stage(*, breaks: bool = False) -> Iterator[Stage]:
    """The cloud of the environment, or a new one; who breaks it has it alone."""
    if (how := shared.missing()) is not None:
        raise SystemExit(how)
    with shared.cloud_of_this_run() as place, shared.turn(place, alone=breaks):
        cloud = OpenStack(place, is_alone=breaks)
        try:
            with stage_of(cloud) as opened:
                yield opened
        finally:
            cloud.remove_projects()


@contextmanager
def stage_of(cloud: OpenStack) -> Iterator[Stage]:
    """A stage; behind it the cloud is whole, and its project is empty."""
    with ExitStack() as stack:
        name = tempfile.TemporaryDirectory(prefix="vmshepherd-openstack-")
        folder = Path(stack.enter_context(name))
        ledger = stack.enter_context(Ledger(cloud.place))
        opened = Stage(cloud=cloud, project=cloud.project(), ledger=ledger, folder=folder)
        try:
            yield opened
        except BaseException:
            keep_logs(folder)
            raise
        finally:
            cloud.heal()
            opened.empty()


def keep_logs(folder: Path) -> None:
    """Where a person finds what the processes said."""
    kept = Path(tempfile.mkdtemp(prefix="vmshepherd-openstack-logs-"))
    for path in folder.glob("**/*.log"):
        shutil.copy(path, kept / path.name)
    print(f"the logs are kept in {kept}", file=sys.stderr)


def end_by_signals() -> None:
    """SIGTERM ends the bench as Ctrl-C does; once it cleans up, neither disturbs it again."""

    def end(_number: int, _frame: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time of processes so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = 0
    for pid in pids:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found += int(words[11]) + int(words[12])
    return found / ticks
