"""What the driver `openstack` shows on a real OpenStack: the one of tests/openstack, and no mock.

    python bench/openstack.py recovery --trials 10 --json
    python bench/openstack.py endure --minutes 30
    python bench/openstack.py storm --creates 500
    python bench/openstack.py cells --times 5 --seconds 60
    python bench/openstack.py listing --servers 1000
    python bench/openstack.py listing --servers 50 --copied 199 --page-size 1000

Each has a module of its own beside this one, which tells what it does. A cloud is started for the
run, which takes some minutes, unless VMSHEPHERD_OPENSTACK names the folder of one that runs
(tests/openstack/README.md). All that is made in it is gone at the end. The exit code is 1 when
anything was wrong.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from bench.openstack_stage import Stage, end_by_signals, keep_logs, stage
from vmshepherd_kit import log

_TOLD: Final = 40
_INTERRUPTED: Final = 130

# Each show, and whether it breaks the cloud for others.
SHOWS: Final = {
    "recovery": False,
    "endure": True,
    "storm": False,
    "cells": True,
    "listing": False,
}


def run(name: str, stage: Stage, **asked: Any) -> dict[str, Any]:
    """The figures of one show, with what was wrong."""
    found, wrong = importlib.import_module(f"bench.openstack_{name}").show(stage, **asked)
    if wrong:
        keep_logs(stage.folder)
    return {**found, "wrong": len(wrong), "what_was_wrong": wrong}


def main() -> int:
    """Run and print; the exit code."""
    _leave_the_name_to_the_library()
    asked = vars(_parser().parse_args())
    as_json, name = asked.pop("json"), asked.pop("show")
    log.setup("warning")
    end_by_signals()
    try:
        with stage(breaks=SHOWS[name]) as opened:
            found = run(name, opened, **asked)
    except KeyboardInterrupt:
        return _INTERRUPTED
    for sentence in found["what_was_wrong"][:_TOLD]:
        print(sentence, file=sys.stderr)
    print(json.dumps(found) if as_json else yaml.safe_dump(found, sort_keys=False))
    return 1 if found["wrong"] else 0


def _leave_the_name_to_the_library() -> None:
    """A script's folder is searched first, where this one would be found for openstacksdk."""
    here = str(Path(__file__).parent)
    sys.path[:] = [each for each in sys.path if each != here]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    shows = parser.add_subparsers(dest="show", required=True)
    recovery = shows.add_parser("recovery", help="a server deleted behind the suite's back")
    recovery.add_argument("--trials", type=int, default=10)
    recovery.add_argument("--vms", type=int, default=5)
    recovery.add_argument("--idle-seconds", type=float, default=60)
    recovery.add_argument("--aim", type=float, default=3.5, help="seconds, of the median")
    recovery.add_argument("--watch-interval", default="", help="of the driver, as 500ms")
    recovery.add_argument("--seed", default="1")
    endure = shows.add_parser("endure", help="bad luck on both sides, and what is left of it")
    endure.add_argument("--minutes", type=float, default=30)
    endure.add_argument("--presets", type=int, default=20)
    endure.add_argument("--vms", type=int, default=5)
    endure.add_argument("--every", type=float, default=6, help="seconds between two blows")
    endure.add_argument("--rabbit-seconds", type=float, default=60, help="how long it is away")
    endure.add_argument("--seed", default="1")
    storm = shows.add_parser("storm", help="creates and deletes through a proxy that does harm")
    storm.add_argument("--creates", type=int, default=500)
    storm.add_argument("--presets", type=int, default=20)
    storm.add_argument("--vms", type=int, default=5)
    cells = shows.add_parser("cells", help="a cell that is down for a while")
    cells.add_argument("--times", type=int, default=5)
    cells.add_argument("--seconds", type=float, default=60)
    cells.add_argument("--vms", type=int, default=6, help="of each of the four presets")
    listing = shows.add_parser("listing", help="many servers, page by page, against curl")
    listing.add_argument("--servers", type=int, default=1000)
    listing.add_argument("--copied", type=int, default=0, help="copies of each, in the database")
    listing.add_argument("--page-size", type=int, default=100)
    listing.add_argument("--times", type=int, default=7)
    listing.add_argument("--aim", type=float, default=1.5, help="times the bare cost, at most")
    return parser


if __name__ == "__main__":
    sys.exit(main())
