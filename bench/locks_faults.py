"""What may befall a store and those who serve it, for the stages of bench/locks.py.

Each is a function that returns a fault: a blocking call which breaks something, lets it be broken
for a spell, and leaves everything in order.
"""

from __future__ import annotations

import random
import resource
from contextlib import suppress
from pathlib import Path

from bench.locks_churn import Fault, Spell
from bench.locks_services import Services
from tests.support import postgres, zookeeper


def kill(services: Services) -> Fault:
    """One of them is killed, and started again."""

    def strike(_: Spell, dice: random.Random) -> None:
        number = dice.randrange(len(services.addresses))
        services.kill(number)
        services.start(number)

    return strike


def hold_up(services: Services) -> Fault:
    """One of them stands still, longer than a session lives."""

    def strike(spell: Spell, dice: random.Random) -> None:
        number = dice.randrange(len(services.addresses))
        services.pause(number)
        try:
            spell.last(dice.uniform(0.4, 1.2))
        finally:
            services.resume(number)

    return strike


def limit_files(services: Services, disk: Path) -> Fault:
    """Files of the first one may not grow."""

    def strike(spell: Spell, dice: random.Random) -> None:
        pid = services.pid(0)
        largest = max(path.stat().st_size for path in disk.iterdir())
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest // 2, hard))
        try:
            spell.last(dice.uniform(0.4, 1.2))
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    return strike


def fill(disk: Path) -> Fault:
    """No space is left."""

    def strike(spell: Spell, dice: random.Random) -> None:
        filler = disk / "filler"
        try:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(b"\0" * 4096):
                    pass
            spell.last(dice.uniform(0.4, 1.2))
        finally:
            filler.unlink()

    return strike


def crash(server: postgres.Server) -> Fault:
    """The server stops as in a crash, and recovers."""

    def strike(_: Spell, _dice: random.Random) -> None:
        server.restart(immediate=True)

    return strike


def terminate(server: postgres.Server) -> Fault:
    """All connections to the server are ended by it, some times in a row."""

    def strike(spell: Spell, dice: random.Random) -> None:
        for _ in range(dice.randint(1, 5)):
            server.terminate_backends()
            spell.last(dice.uniform(0, 0.2))

    return strike


def stand_still(server: postgres.Server) -> Fault:
    """The server neither answers nor closes connections."""

    def strike(spell: Spell, dice: random.Random) -> None:
        server.pause()
        try:
            spell.last(dice.uniform(0.4, 2))
        finally:
            server.resume()

    return strike


class Pair:
    """Two servers, of which one leads and the other confirms each of its commits."""

    def __init__(self, leader: postgres.Server, standby: postgres.Server) -> None:
        self.leader, self.standby = leader, standby

    def fail_over(self, _: Spell, dice: random.Random) -> None:
        """The leader is gone at once, the other leads, and has the former one for a standby."""
        self.leader.stop(immediate=True)
        self.standby.promote()
        self.leader, self.standby = self.standby, self.leader
        self.standby.follow(self.leader, synchronous=True)

    def crash(self, _: Spell, dice: random.Random) -> None:
        """The leader crashes and recovers."""
        self.leader.restart(immediate=True)

    def terminate(self, _: Spell, dice: random.Random) -> None:
        """All connections to the leader are ended by it."""
        self.leader.terminate_backends()


def kill_leader(ensemble: zookeeper.Ensemble) -> Fault:
    """The leader is killed; it comes back when another one leads."""

    def strike(_: Spell, _dice: random.Random) -> None:
        leader = ensemble.leader()
        ensemble.kill(leader)
        ensemble.leader()
        ensemble.restart(leader)

    return strike


def cut_off(ensemble: zookeeper.Ensemble, number: int, *, seconds: float) -> Fault:
    """So many nodes, whichever, stand still for so long."""

    def strike(spell: Spell, dice: random.Random) -> None:
        nodes = dice.sample(list(ensemble.nodes), number)
        ensemble.pause(*nodes)
        try:
            spell.last(seconds)
        finally:
            ensemble.resume(*nodes)
        ensemble.wait_serving()

    return strike


def cut_off_leader(ensemble: zookeeper.Ensemble, *, seconds: float) -> Fault:
    """The leader stands still for so long, and finds another one when it goes on."""

    def strike(spell: Spell, _dice: random.Random) -> None:
        leader = ensemble.leader()
        ensemble.pause(leader)
        try:
            spell.last(seconds)
        finally:
            ensemble.resume(leader)
        ensemble.wait_serving()

    return strike


def restart_all(ensemble: zookeeper.Ensemble) -> Fault:
    """All nodes are killed, and started again."""

    def strike(_: Spell, _dice: random.Random) -> None:
        ensemble.stop()
        ensemble.start()

    return strike
