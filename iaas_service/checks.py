"""What is wrong with a provider before the first create, and with the specs of presets.

The servicer asks, for `vmshepherd doctor`.  A driver that knows its cloud checks what it needs
first; whether VMs can be listed and what the quotas leave is checked of every provider.  Nothing is
made or changed, and what is wrong is told, never raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

from vmshepherd_kit import errors
from vmshepherd_kit.errors import ShepherdError, Unavailable, Unsupported

from .domain import Check, CheckStatus, Quota, Spec
from .port import Checks
from .providers import Provider

_PATIENCE: Final = timedelta(seconds=20)
_AT_A_TIME: Final = 8

# What a person can do, by the kind of the error; the first that fits.
_WAYS_OUT: Final = (
    (errors.Unauthenticated, "correct the credentials in {options}"),
    (errors.Denied, "have the cloud's administrator give this user the role that it lacks"),
    (errors.Throttled, "wait for a while, or ask the cloud for a higher rate"),
    (errors.Unavailable, "see whether the cloud can be reached from here, and {options}"),
)


async def of_provider(provider: Provider) -> Sequence[Check]:
    """All checks of a provider, the driver's own first."""
    cloud = provider.cloud
    found = list(await cloud.check()) if isinstance(cloud, Checks) else []
    if any(each.bars for each in found):
        sentence = "not checked: what it needs is wrong"
        found += [_unchecked("listing", sentence), _unchecked("quota", sentence)]
        return found
    return [
        *found,
        await _checked(provider, "listing", _listing),
        await _checked(provider, "quota", _quota),
    ]


async def of_specs(
    provider: Provider, specs: Sequence[tuple[str, Spec | ShepherdError]]
) -> Sequence[str | ShepherdError]:
    """In order: what each spec stands for, or why no VM can be made of it; what is an error stays
    one.
    """
    places = asyncio.Semaphore(_AT_A_TIME)

    async def one(preset: str, spec: Spec | ShepherdError) -> str | ShepherdError:
        if isinstance(spec, ShepherdError):
            return spec
        async with places:
            return await _spec(provider, preset, spec)

    return await asyncio.gather(*(one(preset, spec) for preset, spec in specs))


def finding(provider: Provider, name: str, error: ShepherdError) -> Check:
    """An error of a check, with the way out."""
    options = f"iaas.providers.{provider.name}.options"
    ways = (way for kind, way in _WAYS_OUT if isinstance(error, kind))
    way_out = next(ways, "").format(options=options)
    return Check(name=name, status=CheckStatus.WRONG, message=error.message, way_out=way_out)


async def _spec(provider: Provider, preset: str, spec: Spec) -> str | ShepherdError:
    cloud = provider.cloud
    if not isinstance(cloud, Checks):
        return Unsupported(f"driver {provider.driver!r} knows what it takes only when it makes VMs")
    try:
        async with asyncio.timeout(_PATIENCE.total_seconds()):
            return await cloud.check_spec(preset, spec)
    except ShepherdError as e:
        return e
    except TimeoutError:
        return _too_slow()


async def _checked(
    provider: Provider, name: str, check: Callable[[Provider], Awaitable[Check]]
) -> Check:
    try:
        async with asyncio.timeout(_PATIENCE.total_seconds()):
            return await check(provider)
    except ShepherdError as e:
        return finding(provider, name, e)
    except TimeoutError:
        return finding(provider, name, _too_slow())


async def _listing(provider: Provider) -> Check:
    reading = await provider.listings.read()
    vms = f"{len(reading.vms)} VM{'s' if len(reading.vms) != 1 else ''} of this suite"
    if reading.complete:
        return Check(name="listing", status=CheckStatus.OK, message=vms)
    return Check(
        name="listing",
        status=CheckStatus.WRONG,
        message=f"{vms}, and the list is not whole: {reading.incomplete_reason}",
        way_out="until the cloud lists all its VMs, none is made and none destroyed",
    )


async def _quota(provider: Provider) -> Check:
    quotas = (await provider.cloud.catalog()).quotas
    spent = [each for each in quotas if each.limit is not None and each.used >= each.limit]
    message = ", ".join(_told(each) for each in spent or quotas) or "the cloud tells none"
    if not spent:
        return Check(name="quota", status=CheckStatus.OK, message=message)
    way_out = "remove what is not needed any more, or ask the cloud for a higher quota"
    return Check(name="quota", status=CheckStatus.WRONG, message=message, way_out=way_out)


def _told(quota: Quota) -> str:
    return (
        f"{quota.resource} {quota.used} of {'any number' if quota.limit is None else quota.limit}"
    )


def _unchecked(name: str, why: str) -> Check:
    return Check(name=name, status=CheckStatus.UNCHECKED, message=why)


def _too_slow() -> Unavailable:
    return Unavailable(f"the cloud gave no answer within {_PATIENCE.total_seconds():g} s")
