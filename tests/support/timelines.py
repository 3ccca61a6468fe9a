"""Short words for timelines and their replay: for tests of the back-test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from orchestrator.backtest.reading import read
from orchestrator.backtest.replay import replay
from orchestrator.backtest.story import Story
from orchestrator.backtest.timeline import Timeline
from orchestrator.model import Check, Policy, PresetName, Spec
from tests.support.given import NOW

DAY = 86400
HEAD: Mapping[str, Any] = {
    "timeline": 1,
    "preset": "web",
    "spec_hash": "spec-1",
    "start": NOW.isoformat(),
    "length": 1800,
}

# What condemns at once and spares nobody, as VmShepherd 1.6 did.
HASTY: Mapping[str, Any] = {
    "fall": 1,
    "rise": 1,
    "min_failing_time": timedelta(0),
}
RECKLESS: Mapping[str, Any] = {
    "startup_grace": timedelta(0),
    "max_surge": 0,
    "max_unavailable": 100,
    "max_deletions_per_cycle": 1000,
    "breaker_count": 1000,
    "breaker_percent": 100,
    "suspend_after": 0,
}


def line(at: float, what: str, **fields: Any) -> dict[str, Any]:
    return {"at": at, "what": what, **fields}


def standing(number: int, **fields: Any) -> list[dict[str, Any]]:
    """VMs that have served since yesterday."""
    return [
        line(0, "vm", vm=f"web-{n}", **{"created": -DAY * n, **fields})
        for n in range(1, number + 1)
    ]


def text(*records: Mapping[str, Any], **head: Any) -> str:
    return "".join(json.dumps(each) + "\n" for each in ({**HEAD, "count": 3, **head}, *records))


def timeline(*records: Mapping[str, Any], vms: int = 3, **head: Any) -> Timeline:
    """So many VMs, and what happens to them."""
    return read(text(*standing(vms), *records, **{"count": vms, **head}), file="web.jsonl")


def terms(*, check: Check | None = Check(), **policy: Any) -> Spec:  # noqa: B008  frozen
    return Spec(name=PresetName("web"), count=0, spec_hash="", check=check, policy=Policy(**policy))


def told(*records: Mapping[str, Any], under: Spec | None = None, **head: Any) -> Story:
    """What a policy, the default one when none is named, does in all this."""
    return replay(timeline(*records, **head), under or terms())


def ends(story: Story) -> list[tuple[str, str]]:
    """Whom it destroyed, and for what reason."""
    return [(each.vm_id, each.reason.name) for each in story.destroyed]


def held(story: Story) -> dict[str, float]:
    """For how many seconds it held what back."""
    return {each.code: each.seconds for each in story.held}
