"""Changes for watchers, and where to resume."""

from __future__ import annotations

import asyncio

import pytest

from preset_service.domain import Change, Preset, PresetSpec, Removed
from preset_service.feed import Feed
from vmshepherd_kit import pages
from vmshepherd_kit.errors import BadRequest, ResumeTokenTooOld


def preset(name: str, count: int = 1) -> Preset:
    return Preset(name=name, spec=PresetSpec(count=count), source="s", file="f")


def removed(name: str) -> Removed:
    return Removed(name=name, source="s", revision="r")


def published(*changes: Change, most_removals: int = 100) -> Feed:
    feed = Feed("life", most_removals=most_removals)
    for change in changes:
        feed.publish([change], is_synced=True)
    return feed


def test_a_snapshot_holds_what_is_there_in_order_of_names() -> None:
    feed = published(preset("b"), preset("a"), preset("c"), removed("c"))
    assert [change.name for change in feed.snapshot().changes] == ["a", "b"]


def test_a_slow_reader_gets_the_newest_of_each_name_once() -> None:
    feed = published(preset("a"))
    position = feed.snapshot().position
    for count in range(1000):
        feed.publish([preset("a", count), preset("b", count)], is_synced=True)
    assert feed.since(position).changes == (preset("a", 999), preset("b", 999))


def test_removals_are_told_and_revivals_forget_them() -> None:
    feed = published(preset("a"))
    position = feed.snapshot().position
    feed.publish([removed("a")], is_synced=True)
    assert feed.since(position).changes == (removed("a"),)
    feed.publish([preset("a")], is_synced=True)
    assert feed.since(position).changes == (preset("a"),)


def test_a_token_resumes_where_it_was_given_out() -> None:
    feed = published(preset("a"))
    token = feed.token(feed.snapshot().position)
    feed.publish([preset("b")], is_synced=True)
    assert feed.since(feed.position_of(token)).changes == (preset("b"),)


def test_whoever_missed_a_forgotten_removal_has_to_list_anew() -> None:
    feed = published(preset("a"), most_removals=2)
    position = feed.snapshot().position
    for name in ("x", "y"):
        feed.publish([removed(name)], is_synced=True)
    assert feed.since(position)
    feed.publish([removed("z")], is_synced=True)
    with pytest.raises(ResumeTokenTooOld):
        feed.since(position)


@pytest.mark.parametrize("at", [0, 1, 99])
def test_a_token_of_another_life_is_too_old(at: int) -> None:
    feed = published(preset("a"))
    with pytest.raises(ResumeTokenTooOld):
        feed.position_of(pages.encode({"life": "other", "at": at}))


def test_a_token_of_the_future_is_of_no_life_of_ours() -> None:
    with pytest.raises(ResumeTokenTooOld):
        published().position_of(pages.encode({"life": "life", "at": 1}))


@pytest.mark.parametrize("token", ["x", "!", pages.encode({"at": "1"}), pages.encode({"b": 1})])
def test_a_token_that_was_never_given_out_is_refused(token: str) -> None:
    with pytest.raises(BadRequest):
        published().position_of(token)


async def test_watchers_wake_for_news_and_for_nothing_else() -> None:
    feed = published(preset("a"))
    batch = feed.snapshot()
    waiting = asyncio.create_task(feed.beyond(batch))
    feed.publish([], is_synced=True)
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.publish([], is_synced=False)
    await waiting
    assert not feed.since(batch.position).is_synced
