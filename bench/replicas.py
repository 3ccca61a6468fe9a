"""Several orchestrators under bad luck: SIGKILL, SIGSTOP, SIGTERM of a random process all the time.

    python bench/replicas.py --driver sqlite --minutes 20 --json

Real processes over a real store and a simulated cloud, which is never hurt. VMs are made first;
while processes are hurt, people read, pause, approve and terminate through random replicas, and
presets grow. Judged: exactly the declared VMs at the end and each preset in the hands of the one
live replica that it falls to; never more than count + surge; no VM destroyed that nobody wanted
gone; tokens that only grow; takeovers, endings and wishes in time; the admin API always whole. The
exit code is 1 when anything was wrong. `--ttl 6` shortens sessions; by default they are those of
production. On two cores, five orchestrators look at 200 settled presets every ten seconds, as in
production, and that takes about a third of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench.replicas_chaos import Chaos
from bench.replicas_fleet import Fleet, Kind
from bench.replicas_judge import of_journal, settled
from bench.replicas_people import HUNG_LIMIT_SECONDS, LIMIT_SECONDS, TEXT, People
from bench.replicas_takeover import Takeover, Takeovers
from bench.replicas_watch import PROVIDER, Cloud, Store, token_regressions
from orchestrator.config import Session
from tests.support import postgres, zookeeper
from vmshepherd_kit import log, serve
from vmshepherd_kit.entry import GRACE

SHARED: Final = ("postgres", "zookeeper")
_MAKING_SECONDS: Final = 300.0
_READ_EVERY: Final = 0.2
_WISH_EVERY: Final = 1.0
_CONVERGE_SECONDS: Final = 120.0
_TOLD: Final = 40


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    driver: str
    orchestrators: int
    presets: int
    vms: int
    minutes: float
    every: float
    seed: str
    ttl: float | None

    @property
    def session(self) -> dict[str, str]:
        """Settings of sessions: a shorter life in the proportions of the default one."""
        if self.ttl is None:
            return {}
        share = self.ttl / Session().ttl.total_seconds()
        keys = ("ttl", "refresh", "rpc_timeout", "margin", "lock_delay")
        return {
            key: f"{getattr(Session(), key).total_seconds() * share * 1000:.0f}ms" for key in keys
        }

    @property
    def ttl_and_delay(self) -> float:
        """Until a dead replica's locks are free, in seconds."""
        timing = Session()
        whole = (timing.ttl + timing.lock_delay).total_seconds()
        return whole if self.ttl is None else whole * self.ttl / timing.ttl.total_seconds()


@contextmanager
def store_of(driver: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A real store, and the driver's options for it."""
    if driver == "postgres":
        with postgres.running() as server:
            yield server.options()
    elif driver == "zookeeper":
        with zookeeper.Ensemble(folder / "ensemble", nodes=3) as ensemble:
            yield {"servers": ensemble.servers, "working_path": "/vmshepherd"}
    else:
        yield {}


def fleet_of(asked: Asked, folder: Path, options: Mapping[str, Any]) -> Fleet:
    """All processes, none of them started."""
    runtimes = 2 if asked.driver in SHARED else 1
    cloud = {"driver": "simulated", "options": {"boot_time": "1s"}}
    configuration = {
        "suite_id": "bench",
        "state_dir": str(folder / "state"),
        "log": {"level": "info", "format": "logfmt"},
        "runtime": {"driver": asked.driver, "options": dict(options)},
        "preset": {"sources": [{"name": "bench", "options": {"path": str(folder / "presets")}}]},
        # Terminations that people wish for count as well.
        "iaas": {"providers": {PROVIDER: cloud}, "limits": {"terminations": 10_000}},
        "orchestrator": {"session": asked.session},
    }
    names = {"preset": "preset", "iaas": "iaas", "health": "health"}
    names |= {f"runtime-{number}": "runtime" for number in range(runtimes)}
    names |= {f"orchestrator-{number}": "orchestrator" for number in range(asked.orchestrators)}
    return Fleet(folder, configuration, names=names, free_port=postgres.free_port)


class Run:
    """One run over one store."""

    def __init__(self, asked: Asked, fleet: Fleet) -> None:
        self._asked = asked
        self._fleet = fleet
        self._counts = {f"preset-{number:04}": asked.vms for number in range(asked.presets)}
        chance = random.Random(asked.seed)  # noqa: S311  bad luck is to be repeated, not secret
        self._takeovers = Takeovers(self._counts, ttl_and_delay=asked.ttl_and_delay)
        self._store = Store(fleet, self._takeovers)
        self._cloud = Cloud(fleet, self._counts)
        self._people = People(
            fleet, self._cloud, self._store, takeovers=self._takeovers, counts=self._counts,
            folder=fleet.folder / "presets", chance=chance,
        )  # fmt: skip
        services = ["orchestrator", "runtime"] if asked.driver in SHARED else ["orchestrator"]
        self._chaos = Chaos(fleet, services, chance=chance, longest_stop=1.5 * asked.ttl_and_delay)
        self._stuck: list[str] = []
        self._made_seconds = self._settled_seconds = 0.0

    async def whole(self) -> dict[str, Any]:
        """Make the VMs, break, wait, judge; the figures."""
        try:
            await self._made()
            await self._broken()
            begun = time.monotonic()
            self._stuck = await self._until_settled(_CONVERGE_SECONDS)
            self._settled_seconds = time.monotonic() - begun
            wrong = [*self._wrong(), *await self._of_records()]
            return self._figures(wrong)
        finally:
            await self._fleet.close()

    async def _made(self) -> None:
        """Phase one: every VM is there, and nothing was hurt yet."""
        begun = time.monotonic()
        for name, count in self._counts.items():
            (self._fleet.folder / "presets" / f"{name}.yaml").write_text(TEXT.format(count=count))
        for wave in (("preset", "iaas", "health", "runtime"), ("orchestrator",)):
            names = [each.name for service in wave for each in self._fleet.of(service)]
            self._fleet.start(*names)
            await self._fleet.until_serving(*names)
        stuck = await self._until_settled(_MAKING_SECONDS)
        if stuck:
            raise RuntimeError(f"the VMs were not made: {stuck}")
        self._made_seconds = time.monotonic() - begun
        self._cloud.judge(await self._cloud.listed())

    async def _broken(self) -> None:
        """Phase two: faults, and people who go on as if there were none."""
        watching = [
            self._store.watch(),
            self._cloud.watch(),
            self._people.read(_READ_EVERY),
            self._people.work(_WISH_EVERY),
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in watching]
            await self._chaos.reign(every=self._asked.every, seconds=self._asked.minutes * 60)
            await self._chaos.cease()
            await self._until_attended()
            for task in tasks:
                task.cancel()

    async def _until_attended(self) -> None:
        while self._takeovers.gaps:
            late = self._takeovers.still_late(time.monotonic() - 10 * LIMIT_SECONDS)
            if late:
                self._takeovers.wrong.extend(late)
                return
            await asyncio.sleep(0.1)

    async def _until_settled(self, seconds: float) -> list[str]:
        return await settled(
            self._fleet, self._store, self._cloud, counts=self._counts, seconds=seconds
        )

    async def _of_records(self) -> list[str]:
        vms = await self._cloud.listed()
        self._cloud.judge(vms)
        events = [event for page in await self._store.events() for event in page.events]
        return token_regressions(vms) + of_journal(events, wanted=self._cloud.wanted)

    def _wrong(self) -> list[str]:
        late = [
            f"{each.preset}: {each.seconds:.1f} s without a holder after "
            f"{' + '.join(sorted(each.causes)) or 'a move'}, where {each.allowed:.1f} s are allowed"
            for each in self._takeovers.over
            if each.is_late
        ]
        slow = [
            f"{each.preset}: {each.what} through {each.through} was answered after "
            f"{each.answered:.2f} s and done by {each.by} after {each.seconds:.2f} s"
            for each in self._people.reached
            if each.seconds > each.limit
        ]
        return [
            *self._stuck, *late, *slow, *self._takeovers.wrong, *self._cloud.wrong,
            *self._people.wrong, *self._chaos.wrong,
        ]  # fmt: skip

    def _figures(self, wrong: Sequence[str]) -> dict[str, Any]:
        asked, reads = self._asked, self._people.reads
        return {
            "driver": asked.driver,
            "seed": asked.seed,
            "orchestrators": asked.orchestrators,
            "presets": asked.presets,
            "vms_at_the_end": sum(self._counts.values()),
            "minutes": asked.minutes,
            "ttl_and_lock_delay_seconds": asked.ttl_and_delay,
            "made_seconds": round(self._made_seconds, 1),
            "settled_seconds": round(self._settled_seconds, 1),
            "faults": dict(self._chaos.done),
            "takeovers": self._takeover_figures(),
            "sigterm_to_end": against(self._chaos.endings, GRACE.total_seconds()),
            "wishes": self._wish_figures(is_store_whole=True),
            "wishes_without_a_runtime_service": self._wish_figures(is_store_whole=False),
            "wishes_disturbed_by_faults": sum(self._people.disturbed.values()),
            "wishes_asked_again": self._people.asked_again,
            "reads": reads.asked,
            "reads_whose_replica_was_hurt": reads.unanswered_by_the_dead,
            "read_seconds": spread(reads.seconds),
            "most_vms_above_count": self._cloud.most,
            "longest_look_of_the_bench_seconds": round(self._store.longest_look, 2),
            "wrong": len(wrong),
            "what_was_wrong": list(wrong),
        }

    def _wish_figures(self, *, is_store_whole: bool) -> dict[str, dict[str, float]]:
        found = [each for each in self._people.reached if each.is_store_whole is is_store_whole]
        limit = LIMIT_SECONDS if is_store_whole else HUNG_LIMIT_SECONDS
        return {
            what: against([each.seconds for each in found if each.what == what], limit)
            for what in sorted({each.what for each in found})
        }

    def _takeover_figures(self) -> dict[str, Any]:
        """By their cause; those with several causes have limits of their own, by the last one."""
        over = [each for each in self._takeovers.over if each.to_another]

        def of(chosen: Callable[[Takeover], bool]) -> dict[str, float]:
            found = [each for each in over if chosen(each)]
            ratio = max((each.seconds / each.allowed for each in found), default=0.0)
            return {**spread([each.seconds for each in found]), "worst_of_limit": round(ratio, 2)}

        single = {
            str(kind): of(lambda each, kind=kind: each.is_single and each.causes == {kind})  # type: ignore[misc]
            for kind in Kind
        }
        return {
            **single,
            "several": of(lambda each: bool(each.causes) and not each.is_single),
            "a move": of(lambda each: not each.causes),
        }


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """How many, the median and the worst."""
    found = sorted(seconds)
    if not found:
        return {"number": 0}
    return {
        "number": len(found),
        "median": round(statistics.median(found), 3),
        "worst": round(found[-1], 3),
    }


def against(seconds: Iterable[float], limit: float) -> dict[str, float]:
    """The same, and the worst as a part of what is allowed."""
    found = spread(seconds)
    return {**found, "worst_of_limit": round(found.get("worst", 0) / limit, 2)}


async def measure(asked: Asked) -> dict[str, Any]:
    """The whole measurement; SIGTERM ends it as Ctrl-C does, so that nothing is left running."""
    for number in (signal.SIGINT, signal.SIGTERM):
        task = asyncio.current_task()
        if task:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with tempfile.TemporaryDirectory(prefix="vmshepherd-replicas-") as name:
        folder = Path(name)
        (folder / "presets").mkdir()
        with store_of(asked.driver, folder) as options:
            found = await Run(asked, fleet_of(asked, folder, options)).whole()
            if found["wrong"]:
                keep_logs(folder)
            return found


def keep_logs(folder: Path) -> None:
    """Where a person finds what the processes said."""
    kept = Path(tempfile.mkdtemp(prefix="vmshepherd-replicas-logs-"))
    for path in folder.glob("*.log"):
        (kept / path.name).write_bytes(path.read_bytes())
    print(f"the logs are kept in {kept}", file=sys.stderr)


def main() -> int:
    """Run and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--driver", choices=("sqlite", *SHARED), default="sqlite")
    parser.add_argument("--orchestrators", type=int, default=5)
    parser.add_argument("--presets", type=int, default=200)
    parser.add_argument("--vms", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--every", type=float, default=10, help="seconds between two faults")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--ttl", type=float, help="life of sessions; the rest in proportion")
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    log.setup("warning")
    try:
        found = serve.run(measure(Asked(**given)))
    except asyncio.CancelledError:
        return 130
    for sentence in found["what_was_wrong"][:_TOLD]:
        print(sentence, file=sys.stderr)
    print(json.dumps(found) if as_json else yaml.safe_dump(found, sort_keys=False))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
