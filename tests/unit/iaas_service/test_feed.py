"""Changes on their way: the latest of each VM, to everybody who listens."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from iaas_service.domain import Changed, Gone, Vm, VmId, VmState
from iaas_service.feed import Feed

VM = Vm(
    vm_id=VmId("1"),
    name="web-1",
    state=VmState.PENDING,
    create_time=datetime(2030, 1, 1, tzinfo=UTC),
    metadata={},
)
OTHER = replace(VM, vm_id=VmId("2"))


async def test_a_slow_reader_gets_the_latest_of_each_vm() -> None:
    feed = Feed()
    with feed.subscribe() as changes:
        for state in VmState:
            feed.publish(Changed(vm=replace(VM, state=state)))
        feed.publish(Changed(vm=OTHER))
        feed.publish(Gone(vm=VM))
        assert await changes.next() == [Changed(vm=OTHER), Gone(vm=VM)]


async def test_everybody_who_listens_hears_it() -> None:
    feed = Feed()
    with feed.subscribe() as one, feed.subscribe() as two:
        feed.publish(Changed(vm=VM))
        assert await one.next() == await two.next() == [Changed(vm=VM)]


async def test_what_was_told_before_is_not_heard() -> None:
    feed = Feed()
    feed.publish(Changed(vm=VM))
    with feed.subscribe() as changes:
        waiting = asyncio.ensure_future(changes.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        feed.publish(Changed(vm=OTHER))
        assert await waiting == [Changed(vm=OTHER)]


async def test_a_feed_knows_whether_anybody_listens() -> None:
    feed = Feed()
    heard = [feed.is_heard]
    with feed.subscribe():
        heard.append(feed.is_heard)
    assert [*heard, feed.is_heard] == [False, True, False]
