"""The way to the services of one place: JSON in, JSON out, errors of the kit.

Everything else of the driver asks through it.  It logs in, renews what has expired, keeps to the
circuit, and tells what surely was not done from what may have been; it repeats nothing that may
have been done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import NotFound, Unavailable

from . import failures
from .asking import Json as Json
from .asking import Params as Params
from .asking import Request, following, headers, numbers
from .circuit import Circuit
from .credentials import Access
from .endpoints import TITLES
from .failures import GATEWAY, Answer, Call
from .login import Login
from .places import Place
from .wire import NoAnswerError, NotSentError, NoTurnError, Wire

# No collection has so many pages: one that has goes round in a circle.
_PAGES: Final = 10_000


class Api:
    """One project in one region of one cloud.

    Paths are relative to the service's versioned endpoint (`/servers`, `/images`, `/networks`);
    services are those of `endpoints.SERVICES`.  Every error has the services' own words, and facts
    `http_status` and `said` where there was an answer.  Of `post`, `put` and `delete`, any error
    but OutcomeUnknown promises that nothing was done.
    """

    def __init__(
        self, place: Place, *, provider: str, login: Login, wire: Wire, clock: Clock
    ) -> None:
        self.place = place
        self.provider = provider
        self._login = login
        self._wire = wire
        self._clock = clock
        self._circuits: dict[str, Circuit] = {}
        self._newest: dict[str, tuple[int, int]] = {}
        self._ahead: timedelta | None = None

    def __str__(self) -> str:
        """For people: the provider and, where it is told, the place."""
        where = str(self.place) if self.place.project or self.place.region else ""
        return f"{self.provider} ({where})" if where else self.provider

    @property
    def ahead(self) -> timedelta:
        """How far the cloud's clock is ahead of ours: by its newest answer with a date, else by its
        token.
        """
        return self._ahead if self._ahead is not None else self._login.ahead

    def now(self) -> datetime:
        """The time by the cloud's clock."""
        return self._clock.wall() + self.ahead

    async def get(
        self,
        service: str,
        path: str,
        *,
        params: Params | None = None,
        microversion: str | None = None,
    ) -> Json:
        """Read something."""
        return await self._content(
            Request(
                method="GET",
                service=service,
                path=path,
                params=params,
                microversion=microversion,
            )
        )

    async def post(
        self,
        service: str,
        path: str,
        *,
        body: Json = None,
        params: Params | None = None,
        microversion: str | None = None,
        changes: bool = True,
    ) -> Json:
        """Make or do something; some of Nova's actions only read (`changes=False`)."""
        return await self._content(
            Request(
                method="POST",
                service=service,
                path=path,
                params=params,
                body=body,
                microversion=microversion,
                changes=changes,
            )
        )

    async def put(
        self,
        service: str,
        path: str,
        *,
        body: Json = None,
        params: Params | None = None,
        microversion: str | None = None,
    ) -> Json:
        """Change something."""
        return await self._content(
            Request(
                method="PUT",
                service=service,
                path=path,
                params=params,
                body=body,
                microversion=microversion,
                changes=True,
            )
        )

    async def delete(
        self,
        service: str,
        path: str,
        *,
        params: Params | None = None,
        microversion: str | None = None,
    ) -> Json:
        """Remove something."""
        return await self._content(
            Request(
                method="DELETE",
                service=service,
                path=path,
                params=params,
                microversion=microversion,
                changes=True,
            )
        )

    async def pages(
        self,
        service: str,
        path: str,
        key: str,
        *,
        params: Params | None = None,
        microversion: str | None = None,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """The pages of a collection that stands beneath `key`, one after the other."""
        asked = dict(params or {})
        for _ in range(_PAGES):
            page = await self.get(service, path, params=asked, microversion=microversion)
            things = self.part(page, key, service)
            yield things
            rest = following(page, key)
            if not rest or not things:
                return
            asked |= rest
        raise Unavailable(f"{self}: {path} has no last page", reason="CLOUD_FAILING")

    async def microversion(self, most: str, *, service: str = "compute") -> str:
        """The newest version that the service has and the driver knows (`most`, as "2.96")."""
        if service not in self._newest:
            root = await self.get(service, "/")
            told = self.part(root, "version", service)
            self._newest[service] = numbers(told.get("version") or "2.1")
        newest = min(self._newest[service], numbers(most))
        return f"{newest[0]}.{newest[1]}"

    def part(self, told: Json, key: str, service: str) -> Json:
        """What stands beneath a key of an answer to a reading.  Unavailable: nothing does."""
        try:
            return told[key]
        except (KeyError, TypeError) as e:
            raise Unavailable(
                f"{TITLES[service]} of {self} answered without {key!r}: is its endpoint that of "
                "another service, or of a proxy?",
                reason="CLOUD_FAILING",
            ) from e

    async def access(self) -> Access:
        """What the login gave: the project's id, the region, the endpoints."""
        return await self._login.access()

    async def close(self) -> None:
        """Give up a login that is under way."""
        await self._login.close()

    async def _content(self, request: Request) -> Json:
        call = Call(
            whom=f"{TITLES[request.service]} of {self}",
            what=f"{request.method} {request.path}",
            changes=request.changes,
        )
        access = await self._login.access()
        answer = await self._exchange(access, request, call)
        if answer.status == 401:  # noqa: PLR2004
            # Refused before anything was done: the token expired early, or was revoked.
            self._login.refuse(access)
            access = await self._login.access()
            answer = await self._exchange(access, request, call)
        if answer.status == 401:  # noqa: PLR2004
            self._login.refuse(access)
        return failures.content(call, answer, self.now())

    async def _exchange(self, access: Access, request: Request, call: Call) -> Answer:
        url = access.endpoints.get(request.service)
        if url is None:
            raise self._without(request.service, access)
        circuit = self._circuit(request.service)
        with circuit.passing():
            try:
                answer = await self._wire.send(
                    request.method,
                    f"{url}/{request.path.lstrip('/')}",
                    headers=headers(access.token, request),
                    params={key: str(value) for key, value in (request.params or {}).items()},
                    body=request.body,
                    is_order=request.changes,
                )
            except NoTurnError as e:
                raise failures.crowded(call, str(e)) from e
            except NotSentError as e:
                circuit.failed(str(e))
                raise failures.unsent(call, str(e)) from e
            except NoAnswerError as e:
                circuit.failed(str(e))
                raise failures.unproven(call, str(e)) from e
            self._compare_clocks(answer)
            self._judge(circuit, answer)
        return answer

    def _judge(self, circuit: Circuit, answer: Answer) -> None:
        if answer.status in GATEWAY:
            circuit.failed(f"it answers {answer.status}")
        else:
            circuit.succeeded()
        if answer.status == 429:  # noqa: PLR2004
            asked = failures.retry_after(answer.headers, self.now())
            circuit.rest(asked or failures.REST)

    def _compare_clocks(self, answer: Answer) -> None:
        with suppress(ValueError, TypeError):
            told = parsedate_to_datetime(answer.headers.get("Date", ""))
            self._ahead = told.astimezone(UTC) - self._clock.wall()

    def _circuit(self, service: str) -> Circuit:
        if service not in self._circuits:
            self._circuits[service] = Circuit(f"{TITLES[service]} of {self}", self._clock)
        return self._circuits[service]

    def _without(self, service: str, access: Access) -> NotFound:
        known = ", ".join(sorted(access.endpoints)) or "none"
        region = f" for region {access.region}" if access.region else ""
        return NotFound(
            f"the catalogue of {self} has no {service} service{region}; it has: {known}",
            reason="NO_SUCH_SERVICE",
            service=service,
        )
