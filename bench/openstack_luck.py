"""What befalls a cloud, a suite and its servers, for `bench/openstack.py endure`: blow by blow.

People delete, stop and break servers, and make others of the same names; processes are killed, on
both sides; tokens are revoked. Whoever was killed starts again soon, who was stopped by a person is
started by one.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bench.openstack_stage import AWAY, Seen, Stage
from bench.openstack_suite import Shepherd
from bench.openstack_watch import Foreign
from tests.e2e.several import REPLICAS
from tests.e2e.waiting import until
from tests.openstack.cloud.daemons import NotReady

# How often each blow falls, against the others.
_ODDS: Final = {
    "delete": 6,
    "stop": 4,
    "error": 3,
    "foreign": 3,
    "kill an orchestrator": 3,
    "kill a service": 3,
    "revoke tokens": 2,
    "restart nova-api": 1,
}
_SERVICES: Final = ("preset", "runtime", "iaas", "health")
_PARKED_SECONDS: Final = (20.0, 60.0)
# Until a supervisor has noticed.
_RESTART_SECONDS: Final = 3.0
_FOREIGN: Final = 12
_PATIENCES: Final = 4
# A server that is being stopped; a busy machine takes its time.
_STOPPING: Final = 240.0


class Luck:
    """Strikes, and sets right in the end."""

    def __init__(
        self, stage: Stage, suite: Shepherd, foreign: Foreign, chance: random.Random
    ) -> None:
        self._stage = stage
        self._suite = suite
        self._foreign = foreign
        self._chance = chance
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.deleted: set[str] = set()
        # When each will be started again by the person who stopped it.
        self.parked: dict[str, float] = {}
        self.wrong: list[str] = []
        self._blows: dict[str, Callable[[], None]] = {
            "delete": self._delete,
            "stop": self._stop,
            "error": self._break,
            "foreign": self._make_foreign,
            "kill an orchestrator": lambda: self._kill(self._chance.choice(REPLICAS)),
            "kill a service": lambda: self._kill(self._chance.choice(_SERVICES)),
            "revoke tokens": lambda: stage.cloud.revoke_tokens(stage.project),
            "restart nova-api": lambda: stage.cloud.restart("nova-api"),
        }

    def strike(self) -> None:
        """One blow by chance; what the cloud itself refuses at this moment does not count."""
        self._notice_ends()
        self.unpark(only_due=True)
        blow = self._chance.choices(list(_ODDS), list(_ODDS.values()))[0]
        try:
            self._blows[blow]()
        except AWAY:
            self.refused[blow] += 1
        else:
            self.done[blow] += 1

    def without_rabbit(self, seconds: float) -> None:
        """The message bus is away; meanwhile only processes of the suite are hurt."""
        self.done["RabbitMQ away"] += 1
        self._stage.cloud.stop("rabbit")
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(min(10.0, max(0.0, end - time.monotonic())))
                self._notice_ends()
                self._kill(self._chance.choice((*REPLICAS, *_SERVICES)))
                self.done["kill without RabbitMQ"] += 1
        finally:
            self._start_rabbit()

    def _start_rabbit(self) -> None:
        """A busy machine may need more than one patience of it."""
        for _ in range(_PATIENCES):
            with suppress(NotReady):
                self._stage.cloud.start("rabbit")
                return
        raise NotReady("RabbitMQ does not start")

    def unpark_all(self) -> None:
        """The last of them, as soon as each has really stopped and the cloud listens."""

        def is_done() -> bool:
            self.unpark()
            return not self.parked

        until(is_done, "people start again what they stopped", seconds=_STOPPING, pause=1.0)

    def unpark(self, *, only_due: bool = False) -> None:
        """People start again what they stopped; a server that was touched meanwhile is missed."""
        now = time.monotonic()
        for server_id in [vm for vm, due in self.parked.items() if due <= now or not only_due]:
            try:
                server = self._stage.project.server(server_id)
                if server.get("OS-EXT-STS:task_state") == "powering-off":
                    # It still looks as if it ran, and would stay stopped for ever.
                    continue
                if server["status"] == "SHUTOFF":
                    self._stage.project.act(server_id, "os-start")
                elif server["status"] != "ACTIVE" and not only_due:
                    self.wrong.append(f"{server_id} was stopped by a person: {server['status']}")
            except AWAY as e:
                if getattr(e, "status", 0) != 404:  # noqa: PLR2004
                    continue
                self.wrong.append(f"{server_id} was stopped by a person, and is gone")
            del self.parked[server_id]

    def _delete(self) -> None:
        victim = self._sound()
        self._stage.project.delete(victim.server_id)
        self.deleted.add(victim.server_id)

    def _stop(self) -> None:
        victim = self._sound()
        self._stage.project.act(victim.server_id, "os-stop")
        self.parked[victim.server_id] = time.monotonic() + self._chance.uniform(*_PARKED_SECONDS)

    def _break(self) -> None:
        self._stage.cloud.set_state(self._sound().server_id, "error")

    def _make_foreign(self) -> None:
        if len(self._foreign.made) < _FOREIGN:
            self._foreign.make(self._sound(), len(self._foreign.made))

    def _sound(self) -> Seen:
        """A server of the suite that nobody has touched yet."""
        found = [
            each
            for each in self._stage.servers()
            if each.preset
            and each.server_id not in self._foreign.made
            and each.server_id not in self.parked
            and (each.status, each.task) == ("ACTIVE", "")
        ]
        if not found:
            raise OSError("no server is well at the moment")
        return self._chance.choice(found)

    def _kill(self, name: str) -> None:
        self._suite.daemons[name].kill()
        time.sleep(self._chance.uniform(0, _RESTART_SECONDS))
        self._suite.start_again(name)

    def _notice_ends(self) -> None:
        for name, daemon in list(self._suite.daemons.items()):
            if not daemon.is_alive:
                self.wrong.append(f"{name} ended by itself: {daemon.said()[-600:]}")
                self._suite.start_again(name)
