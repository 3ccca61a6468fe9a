"""HTTP to the services of one cloud: a bounded number of calls at a time, each bounded in time.

`api` sends with it.  Readings and orders have turns of their own: a cloud that is late with orders
can still be looked at.  A call whose caller goes away is cut off: what was not sent by then is
never sent.  Nothing is repeated here, no redirect is followed, and no header is logged.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final, Self

import aiohttp

from .failures import Answer

# Servers drop silent connections after five seconds at the earliest; a create that meets such an
# end would have an unknown outcome.
_KEPT_SECONDS: Final = 3.0
# Whoever waits longer learns that nothing was sent. Cut off by its own deadline, it could not know.
_PATIENCE: Final = timedelta(seconds=5)
_AGENT: Final = "vmshepherd"


class NoTurnError(Exception):
    """Others keep all connections busy: nothing was sent."""


class NotSentError(Exception):
    """The request never left: nothing was done."""


class NoAnswerError(Exception):
    """The request may have left, and no whole answer came."""


class Wire:
    """The client of one provider; open within its block."""

    def __init__(
        self,
        *,
        connections: int,
        timeout: timedelta,
        context: ssl.SSLContext,
        patience: timedelta = _PATIENCE,
    ) -> None:
        """`connections` orders at a time, and as many readings; others wait for `patience`."""
        self._connections = connections
        self._seconds = timeout.total_seconds()
        self._patience = patience.total_seconds()
        self._context = context
        self._orders = asyncio.Semaphore(connections)
        self._readings = asyncio.Semaphore(connections)
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=2 * self._connections, ssl=self._context, keepalive_timeout=_KEPT_SECONDS
        )
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        self._client = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            trust_env=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Letters stay what they are: Nova takes orders of 112 KiB at most.
            json_serialize=partial(json.dumps, ensure_ascii=False),
            headers={"User-Agent": _AGENT, "Accept": "application/json"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str],
        body: Any = None,
        is_order: bool = False,
    ) -> Answer:
        """Ask, and read the whole answer.  NoTurnError, NotSentError, NoAnswerError.

        An order makes or changes something.
        """
        assert self._client is not None, "used within its block"  # noqa: S101
        async with self._turn(self._orders if is_order else self._readings):
            try:
                async with self._client.request(
                    method, url, headers=headers, params=params, json=body, allow_redirects=False
                ) as answer:
                    told = await answer.read()
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as e:
                raise NotSentError(_why(e)) from e
            except aiohttp.InvalidURL as e:
                raise NotSentError("its endpoint is no URL") from e
            except TimeoutError as e:
                raise NoAnswerError(f"did not answer within {self._seconds:g} s") from e
            except (aiohttp.ClientError, OSError) as e:
                raise NoAnswerError(f"broke the connection off ({type(e).__name__})") from e
        return Answer(status=answer.status, headers=answer.headers, body=told)

    @asynccontextmanager
    async def _turn(self, turns: asyncio.Semaphore) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience):
                await turns.acquire()
        except TimeoutError as e:
            raise NoTurnError(f"{self._connections} calls were under way all the time") from e
        try:
            yield
        finally:
            turns.release()


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return f"its certificate or TLS is not accepted ({error})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"its name {error.host} cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{error.host}:{error.port} refuses connections ({error.strerror})"
    return "no connection was made in time"
