"""What is wrong with a place before the first create, and with a spec: for `vmshepherd doctor`.

`cloud` asks.  The checks follow one another as they depend on each other: credentials, clock,
services, offers, leaks.  Nothing is made or changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import NotFound, ShepherdError

from ...domain import Check, CheckStatus, Spec
from . import diagnosis, leaks
from .api import Api
from .create import Creator
from .credentials import Credentials
from .diagnosis import Passport, Wrong
from .endpoints import TITLES
from .inventory import NEWEST, Inventory
from .resolve import Resolved

_NEEDED: Final = ("compute", "image", "network")
# Announced shutdowns and `changes-since` compare the cloud's clock with ours.
_SKEW: Final = timedelta(seconds=30)
_READER: Final = frozenset({"reader"})
_LOGIN_SECONDS: Final = 5.0
_SHOWN: Final = 5

_UNNAMED_PLACEMENT: Final = (
    "the catalogue does not name it to this user; Nova asks it for the host of each VM"
)
_WITHOUT_PLACEMENT: Final = (
    'Nova asks it for the host of each VM: while it gets no answer either, creates fail with "No '
    'valid host"'
)
_MEND_PLACEMENT: Final = (
    "have the cloud's administrator look at Placement; when VMs are made all the same, its "
    "endpoint is only closed to users"
)

_OK, _WRONG, _UNCHECKED = CheckStatus.OK, CheckStatus.WRONG, CheckStatus.UNCHECKED


class Examiner:
    """Looks at one place."""

    def __init__(
        self,
        api: Api,
        credentials: Credentials,
        inventory: Inventory,
        creator: Creator,
        *,
        suite_id: str,
        clock: Clock,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._api = api
        self._credentials = credentials
        self._inventory = inventory
        self._creator = creator
        self._suite_id = suite_id
        self._clock = clock
        self._threads = threads

    async def check(self) -> Sequence[Check]:
        """All checks; what hangs on one that is wrong is not made."""
        found = await self._log_in()
        if isinstance(found, Wrong):
            titles = (TITLES[each] for each in (*_NEEDED, "placement"))
            rest = map(_not_made, ("clock", *titles, "offers", "leftovers"))
            return [self._no_login(found), *rest]
        credentials, clock = self._judged(found)
        *services, placement = await asyncio.gather(
            *(self._service(each, found) for each in _NEEDED), self._placement()
        )
        if any(each.status is _WRONG for each in services):
            barring = [replace(each, bars=each.status is _WRONG) for each in services]
            rest = map(_not_made, ("offers", "leftovers"))
            return [credentials, clock, *barring, placement, *rest]
        offers = await self._told("offers", self._offers)
        left = await self._told("leftovers", self._leaks)
        return [credentials, clock, *services, placement, offers, left]

    async def check_spec(self, spec: Spec) -> str:
        """What the names of a spec stand for.  Raises what a create would."""
        return described(await self._creator.resolver.resolve(spec))

    async def _log_in(self) -> tuple[Passport, timedelta | None] | Wrong:
        before = self._clock.wall()
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads,
            lambda: diagnosis.log_in(self._credentials, timeout_seconds=_LOGIN_SECONDS),
        )
        if isinstance(found, Wrong):
            return found
        return found, _ahead(found.issued, before, self._clock.wall())

    def _judged(self, login: tuple[Passport, timedelta | None]) -> tuple[Check, Check]:
        passport, ahead = login
        wanted = self._api.place.project
        if wanted not in {"", passport.project}:
            return self._elsewhere(passport, wanted), _clock(ahead)
        return _credentials(passport), _clock(ahead)

    def _elsewhere(self, passport: Passport, wanted: str) -> Check:
        return Check(
            name="credentials",
            status=_WRONG,
            message=f"the credentials are of project {passport.project}, not of {wanted}: an "
            "application credential belongs to the project that it was made in",
            way_out=f"make one in {wanted}, or name {passport.project} in {self._options}",
        )

    async def _service(self, service: str, login: tuple[Passport, timedelta | None]) -> Check:
        title = TITLES[service]
        try:
            said = await self._reached(service)
        except NotFound as e:
            if e.reason != "NO_SUCH_SERVICE":
                return self._failed(title, e)
            regions = ", ".join(login[0].regions) or "none"
            way_out = f"name another region in {self._options}; the cloud has {regions}"
            return Check(name=title, status=_WRONG, message=e.message, way_out=way_out)
        except ShepherdError as e:
            return self._failed(title, e)
        return Check(name=title, status=_OK, message=said)

    async def _reached(self, service: str) -> str:
        url = (await self._api.access()).endpoints.get(service, "")
        if service == "compute":
            version = await self._api.microversion(NEWEST)
            await self._api.get("compute", "/limits")
            return f"{url}, microversion {version}"
        collection = {"image": "/images", "network": "/networks"}[service]
        await self._api.get(service, collection, params={"limit": 1})
        return url

    async def _placement(self) -> Check:
        """Nova asks it for the host of each VM; the driver itself never does."""
        title = TITLES["placement"]
        try:
            if (url := (await self._api.access()).endpoints.get("placement")) is None:
                return Check(name=title, status=_UNCHECKED, message=_UNNAMED_PLACEMENT)
            self._api.part(await self._api.get("placement", "/"), "versions", "placement")
        except ShepherdError as e:
            message = f"{e.message}. {_WITHOUT_PLACEMENT}"
            return Check(name=title, status=_WRONG, message=message, way_out=_MEND_PLACEMENT)
        return Check(name=title, status=_OK, message=url)

    async def _told(self, name: str, check: Callable[[], Awaitable[Check]]) -> Check:
        try:
            return await check()
        except ShepherdError as e:
            return self._failed(name, e)

    async def _offers(self) -> Check:
        inventory = self._inventory
        offered = {
            "images": [i for i in await inventory.images() if i.facts["status"] == "active"],
            "flavors": await inventory.flavors(),
            "networks": await inventory.networks(),
            "zones": [z for z in await inventory.zones() if z.facts["available"]],
        }
        message = ", ".join(f"{kind}: {len(things)}" for kind, things in offered.items())
        lacking = [kind for kind, things in offered.items() if not things]
        if not lacking:
            return Check(name="offers", status=_OK, message=message)
        way_out = f"have the cloud's administrator offer {' and '.join(lacking)} to this project"
        return Check(name="offers", status=_WRONG, message=message, way_out=way_out)

    async def _leaks(self) -> Check:
        return leftovers(
            await leaks.find(self._api, suite_id=self._suite_id, made=self._creator.made)
        )

    @property
    def _options(self) -> str:
        return f"iaas.providers.{self._api.provider}.options"

    def _no_login(self, wrong: Wrong) -> Check:
        source = self._credentials.source
        options = f"{source} ({self._options})" if source else self._options
        way_out = wrong.way_out.format(options=options)
        return Check(
            name="credentials", status=_WRONG, message=wrong.message, way_out=way_out, bars=True
        )

    def _failed(self, name: str, error: ShepherdError) -> Check:
        status = error.facts.get("http_status")
        if status == "403":
            way_out = "have the cloud's administrator give this user the role `member`"
        elif status or error.reason == "CLOUD_FAILING":
            way_out = "see what the cloud says; when it is at fault, wait for it"
        else:
            way_out = (
                "see whether the catalogue's endpoint can be reached from here; option interface "
                f"of {self._options} chooses another kind of it"
            )
        return Check(name=name, status=_WRONG, message=error.message, way_out=way_out)


def described(resolved: Resolved) -> str:
    """What would be made, for people who want to see which image is meant."""
    facts = resolved.flavor.facts
    size = f"{facts['vcpus']} vcpus, {facts['ram_mib']} MiB, {facts['disk_gib']} GiB"
    parts = [
        f"image {resolved.image.name} ({resolved.image.id})",
        f"flavor {resolved.flavor.name} ({size})",
        f"networks {_names(each.network.name for each in resolved.interfaces)}"
        if resolved.interfaces
        else f"networks: {resolved.networks}",
    ]
    if resolved.security_groups:
        parts.append(f"security groups {_names(each.name for each in resolved.security_groups)}")
    if resolved.zone:
        parts.append(f"zone {resolved.zone}")
    return ", ".join(parts)


def leftovers(found: Sequence[leaks.Leak]) -> Check:
    """What VMs left behind; what may be somebody else's is told, and is nobody's fault."""
    name = "leftovers"
    if not found:
        return Check(name=name, status=_OK, message="no port or volume of VMs that are gone")
    ours = [each for each in found if each.is_ours]
    shown = [f"{each.kind} {each.id} ({each.about})" for each in (ours or found)[:_SHOWN]]
    more = f" and {len(ours or found) - _SHOWN} more" if len(ours or found) > _SHOWN else ""
    whose = "left behind" if ours else "left behind, perhaps by VMs of others"
    return Check(
        name=name,
        status=_WRONG if ours else _UNCHECKED,
        message=f"{whose}: {'; '.join(shown)}{more}",
        way_out="when nobody needs them: `openstack port delete ID`, `openstack volume delete ID`",
    )


def _credentials(passport: Passport) -> Check:
    roles = ", ".join(passport.roles) or "no roles"
    message = f"user {passport.user} in project {passport.project}, with {roles}"
    if passport.roles and _READER.issuperset(passport.roles):
        return Check(
            name="credentials",
            status=_WRONG,
            message=f"{message}: it may look, and make nothing",
            way_out="have the cloud's administrator give this user the role `member`",
        )
    return Check(name="credentials", status=_OK, message=message)


def _clock(ahead: timedelta | None) -> Check:
    if ahead is None:
        return Check(name="clock", status=_UNCHECKED, message="the cloud does not tell its time")
    seconds = abs(ahead).total_seconds()
    if abs(ahead) <= _SKEW:
        return Check(name="clock", status=_OK, message=f"within {seconds:.0f} s of the cloud's")
    which = "ahead of" if ahead > timedelta(0) else "behind"
    return Check(
        name="clock",
        status=_WRONG,
        message=f"this host's clock is {seconds:.0f} s {which} the cloud's",
        way_out="have this host's clock set by NTP; if it is, tell the cloud's administrator",
    )


def _ahead(issued: datetime | None, before: datetime, after: datetime) -> timedelta | None:
    """How far our clock is ahead: the cloud told its time, in whole seconds, between two of
    ours.
    """
    if issued is None:
        return None
    if before - timedelta(seconds=1) <= issued <= after:
        return timedelta(0)
    return before - issued if issued < before else after - issued


def _not_made(name: str) -> Check:
    return Check(name=name, status=_UNCHECKED, message="not checked: what it needs is wrong")


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
