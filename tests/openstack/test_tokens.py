"""Tokens that end, are revoked, or are slow to come: what it costs, and whom it concerns."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from iaas_service.domain import VmId
from iaas_service.testing import eventually
from tests.openstack.clocks import LeapingClock, StandingClock
from tests.openstack.driver import driver
from tests.openstack.faults import Closed, Fault, Refusal
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import NotFound, Unauthenticated, Unavailable

LOGIN = "identity POST /auth/tokens"
NOBODY = VmId("no-such-vm")
UNASKED = Refusal(status=401, forwarded=False)


async def test_a_revoked_token_is_renewed_once_for_all_services(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        await asyncio.to_thread(openstack.revoke_tokens, project)
        with proxy.counting() as calls:
            await asyncio.gather(cloud.catalog(), cloud.list(), cloud.catalog())
            assert (await cloud.list()).complete
        assert calls[LOGIN] == 1


async def test_a_late_refusal_of_an_old_token_costs_the_new_one_nothing(
    home: Project, proxy: Proxy
) -> None:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        late = Refusal(status=401, forwarded=False, seconds=3)
        slow = proxy.on("compute", "GET", "/servers/detail", late, times=1)
        proxy.on("compute", "GET", f"/servers/{NOBODY}", UNASKED, times=1)
        with proxy.counting() as calls:
            listing = asyncio.ensure_future(cloud.list())
            await eventually(slow.is_met)
            [found] = await cloud.get([NOBODY])
            assert isinstance(found, NotFound)
            assert (await listing).complete
        assert calls[LOGIN] == 1


async def test_a_token_that_is_refused_as_soon_as_it_is_new_is_not_kept(
    home: Project, proxy: Proxy
) -> None:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        refused = proxy.on("compute", "GET", "/servers/detail", UNASKED, times=2)
        with proxy.counting() as calls:
            with pytest.raises(Unauthenticated):
                await cloud.list()
            assert len(refused.met) == 2
            assert (await cloud.list()).complete
        assert calls[LOGIN] == 2


async def test_a_token_is_renewed_before_it_ends(home: Project, proxy: Proxy) -> None:
    clock = LeapingClock()
    async with driver(home, auth_url=proxy.auth_url, clock=clock) as cloud:
        access = await cloud.sites[0].api.access()
        with proxy.counting() as calls:
            clock.leap(access.lifetime - timedelta(minutes=10))
            await cloud.list()
        assert calls[LOGIN] == 0
        with proxy.counting() as calls:
            clock.leap(timedelta(minutes=9))
            await asyncio.gather(*(cloud.list() for _ in range(3)))
        assert calls[LOGIN] == 1


async def test_whoever_goes_away_does_not_take_the_login_of_the_others_along(
    home: Project, proxy: Proxy
) -> None:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        slow = proxy.on("identity", "POST", "/auth/tokens", Fault(seconds=1))
        first, second = (asyncio.ensure_future(cloud.get([NOBODY])) for _ in range(2))
        await eventually(slow.is_met)
        first.cancel()
        [found] = await second
        assert isinstance(found, NotFound)
        assert len(slow.met) == 1


async def test_a_keystone_that_is_away_is_left_alone_most_of_the_time(
    home: Project, proxy: Proxy
) -> None:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        away = proxy.on("identity", "*", ".*", Closed(forwarded=False))
        with pytest.raises(Unavailable):
            await cloud.list()
        a_login = len(away.met)
        for _ in range(39):
            with pytest.raises(Unavailable):
                await cloud.list()
        # Three open the circuit; on a slow machine some intervals may pass meanwhile.
        assert len(away.met) <= 20 * a_login


async def test_a_login_that_failed_for_a_moment_is_tried_again_by_the_next_caller(
    home: Project, proxy: Proxy
) -> None:
    # It never leaps: no time need pass.
    clock = StandingClock()
    async with driver(home, auth_url=proxy.auth_url, clock=clock) as cloud:
        proxy.on("identity", "*", ".*", Refusal(status=503, forwarded=False))
        with pytest.raises(Unavailable, match="cannot be asked for a token"):
            await cloud.list()
        proxy.calm()
        assert (await cloud.list()).complete
