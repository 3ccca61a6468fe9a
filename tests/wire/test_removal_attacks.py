"""Sources that lie about what they declare, over real gRPC: what they must not cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.suite import Place, Replica, place, until
from vmshepherd.orchestrator.v1 import view_pb2 as view

REMOVED = view.PRESET_PHASE_REMOVED
HELD = "REMOVALS_NEED_APPROVAL"
DELETE: dict[str, Any] = {"on_remove": "delete", "removal_grace": "0s"}
WHOLE = """name: web
count: 1
flavor: small
image: any
policy: {on_remove: delete, removal_grace: 0s}
"""
BROKEN = "name: web # the front\ncount: [\n"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as found:
        # One stays: where none is declared any more, nothing is destroyed unasked.
        found.declare("other", count=0)
        yield found


async def is_held(replica: Replica, name: str = "web") -> str:
    """Why nothing of a removed preset is destroyed."""
    seen = await replica.becomes(name, lambda seen: HELD in {c.code for c in seen.conditions})
    [why] = [each.message for each in seen.conditions if each.code == HELD]
    return why


async def test_a_broken_file_that_a_fresh_preset_service_takes_for_another_removes_nothing(
    here: Place,
) -> None:
    here.declare("front", WHOLE)
    first = await here.replica()
    await first.settled("web")
    await first.stop()
    # Nothing of it can be read, and this preset service has no memory of it.
    here.declare("front", BROKEN)
    second = await here.replica()
    assert "front.yaml was refused" in await is_held(second)
    await second.look("web")
    assert here.alive() == 1
    here.declare("front", WHOLE)
    await second.settled()
    assert here.alive() == 1


async def test_a_file_of_which_not_even_a_name_can_be_guessed_removes_nothing(here: Place) -> None:
    here.declare("the front", WHOLE)
    first = await here.replica()
    await first.settled("web")
    await first.stop()
    here.declare("the front", BROKEN)
    assert "the front.yaml was refused" in await is_held(await here.replica())
    assert here.alive() == 1


async def test_a_directory_that_is_away_holds_the_end_of_a_removed_preset_back(
    here: Place,
) -> None:
    here.declare("web", count=1, policy={**DELETE, "removal_grace": "1h"})
    here.declare("cache", count=1)
    replica = await here.replica()
    await replica.settled()
    here.remove()
    await replica.becomes("web", lambda seen: seen.phase == REMOVED)
    (here.folder / "presets").rename(here.folder / "elsewhere")

    async def is_told() -> bool:
        await replica.look("web")
        return HELD in await replica.codes()

    await until(is_told)
    assert "local" in await is_held(replica)
    assert here.alive() == 2


async def test_an_empty_directory_in_the_place_of_the_right_one_costs_no_vm(here: Place) -> None:
    for name in ("web", "cache"):
        here.declare(name, count=1, policy=DELETE)
    first = await here.replica()
    for name in ("web", "cache"):
        await first.settled(name)
    await first.stop()
    right = here.folder / "presets"
    right.rename(here.folder / "elsewhere")
    right.mkdir()
    second = await here.replica()
    for name in ("web", "cache"):
        await is_held(second, name)
        await second.look(name)
    assert here.alive() == 2
    right.rmdir()
    (here.folder / "elsewhere").rename(right)
    for name in ("web", "cache"):
        await second.settled(name)
    assert here.alive() == 2
