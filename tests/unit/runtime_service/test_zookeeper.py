"""What the driver `zookeeper` decides without an ensemble: when a life is over, how names become
paths, what fits a packet, and what may be set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kazoo.protocol.states import KeeperState

from runtime_service.domain import SessionId
from runtime_service.drivers.zookeeper import ZookeeperOptions
from runtime_service.drivers.zookeeper.client import SENT_AT_ONCE, Client
from runtime_service.drivers.zookeeper.lives import Lives
from runtime_service.drivers.zookeeper.operations import PACKET_BYTES, packets
from runtime_service.drivers.zookeeper.paths import quoted, unquoted
from runtime_service.rules import SessionRecord
from vmshepherd_kit import settings
from vmshepherd_kit.settings import Invalid
from vmshepherd_kit.testing import FakeClock

TTL, DELAY = timedelta(seconds=20), timedelta(seconds=10)
SERVERS = {"servers": "h1:2181,h2:2181"}


def record() -> SessionRecord:
    return SessionRecord(
        number=1,
        session_id=SessionId("s"),
        owner="o",
        ttl=TTL,
        lock_delay=DELAY,
        labels={},
        opened=timedelta(0),
        expires=timedelta(0),
    )


def at(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def test_a_life_is_counted_from_when_its_beat_was_first_seen() -> None:
    lives = Lives()
    assert lives.seen(record(), 0, at(5)).expires == at(25)
    assert lives.seen(record(), 0, at(15)).expires == at(25)
    assert lives.seen(record(), 1, at(24)).expires == at(44)


def test_a_beat_that_was_missed_only_lengthens_a_life() -> None:
    lives = Lives()
    lives.seen(record(), 0, at(0))
    assert lives.seen(record(), 7, at(100)).is_live(at(119))


def test_the_lock_delay_is_counted_from_the_end_that_was_seen() -> None:
    lives = Lives()
    lives.seen(record(), 3, at(0))
    ended = lives.seen(record(), None, at(12))
    assert not ended.is_live(at(12))
    assert ended.frees_locks == at(22)
    assert lives.seen(record(), None, at(21)).frees_locks == at(22)


def test_whoever_ended_a_life_counts_the_delay_from_the_end_of_its_ttl() -> None:
    lives = Lives()
    session = lives.seen(record(), 3, at(0))
    lives.ended(session)
    assert lives.seen(record(), None, at(24)).frees_locks == at(30)


def test_a_session_that_was_forgotten_has_a_full_life_again() -> None:
    lives = Lives()
    lives.seen(record(), 3, at(0))
    lives.keep([])
    assert lives.seen(record(), 3, at(19)).expires == at(39)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256))
def test_any_name_is_one_part_of_a_path_and_comes_back(name: str) -> None:
    part = quoted(name)
    assert unquoted(part) == name
    assert part.isascii()
    assert not {"/", "."} & set(part)


@given(st.lists(st.integers(0, PACKET_BYTES * 2), max_size=50))
def test_packets_keep_all_items_in_order_and_none_is_too_large_but_of_one(sizes: list[int]) -> None:
    cut = list(packets(sizes, lambda size: size, most=7))
    assert [size for packet in cut for size in packet] == sizes
    assert all(len(packet) == 1 or sum(packet) <= PACKET_BYTES for packet in cut)
    assert all(0 < len(packet) <= 7 for packet in cut)


@pytest.mark.parametrize("servers", ["h1:2181,h2:2181", ["h1:2181", "h2:2181"]])
def test_servers_are_a_text_or_a_list(servers: Any) -> None:
    options = settings.parse({"servers": servers}, ZookeeperOptions)
    assert options.servers == ("h1:2181", "h2:2181")


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({}, "servers"),
        ({"servers": ""}, "servers"),
        ({"servers": "h1:2181/chroot"}, "servers"),
        ({**SERVERS, "working_path": "vmshepherd"}, "working_path"),
        ({**SERVERS, "working_path": "/a/../b"}, "working_path"),
        ({**SERVERS, "working_path": "/"}, "working_path"),
        ({**SERVERS, "addauth": {"auth": "a:b", "auth_file": "c"}}, "addauth"),
        ({**SERVERS, "addauth": {"scheme": "digest"}}, "addauth"),
        ({**SERVERS, "sasl": {"username": "u"}}, "sasl"),
        ({**SERVERS, "tls": {"cert": "c"}}, "tls"),
        ({**SERVERS, "timeout": "1ms"}, "timeout"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_their_path(
    raw: dict[str, Any], path: str
) -> None:
    with pytest.raises(Invalid) as refused:
        settings.parse(raw, ZookeeperOptions)
    assert {finding.path.split(".")[0] for finding in refused.value.findings} == {path}


def test_the_options_of_the_predecessor_are_understood() -> None:
    raw = {
        "servers": ["zk1:2181", "zk2:2181"],
        "working_path": "/vmshepherd",
        "addauth": {"scheme": "digest", "auth": "user:pw"},
    }
    options = settings.parse(raw, ZookeeperOptions)
    assert [each.scheme for each in options.addauth] == ["digest"]
    assert "user:pw" not in repr(options)


class Request:
    """What kazoo answers with at once; it has no result before a test says so."""

    exception = None
    value = "done"
    finish: Callable[[], object]

    def rawlink(self, callback: Callable[[Request], None]) -> None:
        self.finish = lambda: callback(self)


class Kazoo:
    """A client that is connected, and sends nothing."""

    connected = True
    client_state = KeeperState.CONNECTED

    def __init__(self) -> None:
        self.waiting: list[Request] = []

    def begin(self) -> Request:
        self.waiting.append(Request())
        return self.waiting[-1]


async def test_no_more_is_asked_at_once_than_kazoo_takes_without_blocking_whoever_asks() -> None:
    kazoo = Kazoo()
    client = Client(kazoo, FakeClock())
    asked = [
        asyncio.create_task(client.ask(*[lambda zookeeper: zookeeper.begin()] * SENT_AT_ONCE))
        for _ in range(1000)
    ]
    # Callers that give up make no room: what they asked for is still on its way.
    for task in asked[::2]:
        await asyncio.wait([task], timeout=0)
        task.cancel()
    most = 0
    while not all(task.done() for task in asked):
        most = max(most, len(kazoo.waiting))
        for request in kazoo.waiting[:]:
            kazoo.waiting.remove(request)
            request.finish()
        await asyncio.wait(asked, timeout=0.001)
    # 278 wake-up bytes fill the socket through which kazoo's thread is woken.
    assert 0 < most <= 270
    done = await asyncio.gather(*asked[1::2])
    assert done == [["done"] * SENT_AT_ONCE] * 500
