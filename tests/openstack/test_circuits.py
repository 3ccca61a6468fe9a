"""A service that fails, or asks for rest, is left alone; the others of the cloud are not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from iaas_service.drivers.openstack import api as api_module
from iaas_service.testing import eventually
from tests.openstack.clocks import LeapingClock
from tests.openstack.driver import driver
from tests.openstack.faults import Closed, Empty, Endless, Refusal, Unanswered
from tests.openstack.ground import Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import Throttled, Unavailable

DETAIL = "compute GET /servers/detail"


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_gateway_that_has_nobody_behind_it_opens_the_circuit(
    home: Project, proxy: Proxy, status: int
) -> None:
    clock = LeapingClock()
    async with driver(home, auth_url=proxy.auth_url, clock=clock) as cloud:
        await cloud.list()
        away = proxy.on("compute", "*", ".*", Refusal(status=status, forwarded=False))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await cloud.list()
        with pytest.raises(Unavailable, match="nothing was sent") as told:
            await cloud.list()
        assert told.value.reason == "CLOUD_UNREACHABLE"
        assert len(away.met) == 3
        proxy.calm()
        clock.leap(timedelta(seconds=5))
        assert (await cloud.list()).complete


async def test_a_request_that_nova_fails_at_keeps_nobody_else_from_asking(
    home: Project, proxy: Proxy
) -> None:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        failing = proxy.on("compute", "GET", "/servers/detail", Refusal(status=500))
        for _ in range(5):
            with pytest.raises(Unavailable):
                await cloud.list()
        assert len(failing.met) == 5


async def test_a_service_that_asks_for_rest_without_saying_how_long_gets_some(
    home: Project, proxy: Proxy
) -> None:
    clock = LeapingClock()
    async with driver(home, auth_url=proxy.auth_url, clock=clock) as cloud:
        await cloud.list()
        busy = Refusal(status=429, forwarded=False)
        proxy.on("compute", "GET", "/servers/detail", busy, times=1)
        with proxy.counting() as calls:
            for _ in range(3):
                with pytest.raises(Throttled):
                    await cloud.list()
            clock.leap(timedelta(seconds=5))
            assert (await cloud.list()).complete
        assert calls[DETAIL] == 2


async def test_a_service_that_is_away_bars_no_other(home: Project, proxy: Proxy) -> None:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        proxy.on("network", "*", ".*", Closed(forwarded=False))
        for _ in range(4):
            with pytest.raises(Unavailable, match="Neutron"):
                await cloud.sites[0].inventory.networks()
        assert (await cloud.list()).complete


async def test_pages_that_never_end_are_given_up(
    home: Project, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_PAGES", 4)
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        circle = proxy.on("compute", "GET", "/flavors/detail", Endless(key="flavors"))
        with pytest.raises(Unavailable, match="has no last page"):
            await cloud.catalog()
        assert len(circle.met) == 4


async def test_a_page_without_anything_is_the_last_one(
    home: Project, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_PAGES", 4)
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        proxy.on("compute", "GET", "/servers/detail", Endless(key="servers"))
        with proxy.counting() as calls:
            assert (await cloud.list()).complete
        assert calls[DETAIL] == 1


async def test_a_good_answer_of_something_else_is_no_empty_list(
    home: Project, proxy: Proxy
) -> None:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        proxy.on("compute", "GET", "/servers/detail", Empty(key="somebody_elses"))
        with pytest.raises(Unavailable, match="answered without 'servers'"):
            await cloud.list()


async def test_callers_who_had_no_turn_do_not_open_the_circuit(home: Project, proxy: Proxy) -> None:
    async with driver(home, auth_url=proxy.auth_url, connections=1) as cloud:
        await cloud.list()
        cloud.sites[0].api._wire._patience = 0.2
        silent = proxy.on("compute", "GET", "/servers/detail", Unanswered(forwarded=False), times=1)
        holder = asyncio.ensure_future(cloud.list())
        await eventually(silent.is_met)
        for _ in range(4):
            with pytest.raises(Throttled, match="was not asked"):
                await cloud.list()
        holder.cancel()
        await asyncio.wait({holder})
        assert (await cloud.list()).complete
