"""Several orchestrators under bad luck: SIGKILL, SIGSTOP, SIGTERM of a random process all the time.

    python bench/replicas.py --driver sqlite --minutes 20 --json

Real processes over a real store and a simulated cloud, which is never hurt. VMs are made first;
while processes are hurt, people read, pause, approve and terminate through random replicas, and
presets grow. Judged: exactly the declared VMs at the end and each preset in the hands of the one
live replica that it falls to; never more than count + surge; no VM destroyed that nobody wanted
gone; tokens that only grow; takeovers, endings and wishes in time; the admin API always whole. The
exit code is 1 when anything was wrong. `--ttl 6` shortens sessions; by default they are those of
production. On two cores, five orchestrators look at 200 settled presets every ten seconds, as in
production, and all processes together take about a quarter of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from bench.replicas_fleet import Fleet
from bench.replicas_run import SHARED, Asked, Run
from bench.replicas_watch import PROVIDER
from tests.support import postgres, zookeeper
from vmshepherd_kit import log, serve

_TOLD: Final = 40


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
