"""The token of one place: asked for when first needed, shared by all callers, renewed in time.

`api` takes the access and says when the cloud refuses it.  Callers side by side wait for one and
the same login; one that failed is told to all of them, and is tried again after a moment.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from keystoneauth1 import exceptions as refusals

from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import Denied, Refused, ShepherdError, Unauthenticated, Unavailable
from vmshepherd_kit.tasks import hear

from . import failures
from .circuit import Circuit
from .credentials import Access, Credentials

# A token is renewed before it ends, so that no request meets its end.
_EARLY: Final = timedelta(minutes=2)
# Identity services lock an account that fails too often, and each login costs them a token.
_AFTER_REFUSAL: Final = timedelta(seconds=10)
# Of a credential that nobody made, and of a token that is none or has ended.
_NEVER_HEARD: Final = re.compile(
    r"could not (find|recognize) |failed to validate token|recognized fernet", re.IGNORECASE
)

_log = log.get("iaas.openstack")


class Login:
    """The access of one place."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        where: str,
        clock: Clock,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._credentials = credentials
        self._where = where
        self._clock = clock
        self._threads = threads
        self._circuit = Circuit(f"Keystone of {where}", clock)
        self._access: Access | None = None
        self._renew_at = timedelta(0)
        self._running: asyncio.Task[Access] | None = None
        self._refusal: ShepherdError | None = None
        self._refused_until = timedelta(0)
        self.ahead = timedelta(0)
        """How far the cloud's clock is ahead of ours, by its newest token."""

    async def access(self) -> Access:
        """A token that the cloud has not refused yet, and where the services are.

        Raises Unauthenticated, Denied, Refused or Unavailable.
        """
        now = self._clock.elapsed()
        if self._access is not None and now < self._renew_at:
            return self._access
        if self._refusal is not None and now < self._refused_until:
            raise self._refusal
        if self._running is None:
            self._running = asyncio.create_task(self._log_in())
            self._running.add_done_callback(hear)
        # Whoever goes away must not take the others' login along.
        return await asyncio.shield(self._running)

    def refuse(self, access: Access) -> None:
        """The cloud does not take this token: the next caller gets another one."""
        if self._access is access:
            self._access = None

    async def close(self) -> None:
        """Give up a login that is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _log_in(self) -> Access:
        try:
            with self._circuit.passing():
                begun = self._clock.elapsed()
                loop = asyncio.get_running_loop()
                access = await loop.run_in_executor(self._threads, self._credentials.login)
        except ShepherdError as e:
            raise self._remembered(e) from None
        except refusals.ClientException as e:
            raise self._remembered(self._understood(e)) from e
        finally:
            self._running = None
        self._circuit.succeeded()
        self._access, self._refusal = access, None
        if access.issued is not None:
            self.ahead = access.issued - self._clock.wall()
        self._renew_at = begun + max(access.lifetime - _EARLY, access.lifetime / 2)
        _log.debug("logged in", where=self._where, project=access.project_id)
        return access

    def _remembered(self, error: ShepherdError) -> ShepherdError:
        if isinstance(error, Unauthenticated | Denied | Refused):
            self._refusal = error
            self._refused_until = self._clock.elapsed() + _AFTER_REFUSAL
        return error

    def _understood(self, error: refusals.ClientException) -> ShepherdError:
        words = failures.words(error)
        if isinstance(error, refusals.ConnectionError | refusals.DiscoveryFailure):
            self._circuit.failed(words)
            return self._unreachable(words)
        self._circuit.succeeded()
        if isinstance(error, refusals.HttpError):
            return self._answered(error, words)
        return Refused(
            f"{self._where} gives no token: {words}", reason="CLOUD_UNUSABLE", where=self._where
        )

    def _answered(self, error: refusals.HttpError, words: str) -> ShepherdError:
        status = error.http_status or 0
        if status in {400, 401} or is_not_found_by_keystone(error):
            return Unauthenticated(
                f"{self._where} does not accept the credentials: {words}; correct user, password, "
                "domain, project or application credential"
            )
        if status == 403:  # noqa: PLR2004
            return Denied(f"{self._where} lets this user not log in: {words}")
        if status == 404:  # noqa: PLR2004
            return Refused(
                f"there is no identity service at the auth_url of {self._where}: {words}",
                reason="CLOUD_UNUSABLE",
            )
        return self._unreachable(words)

    def _unreachable(self, words: str) -> Unavailable:
        return Unavailable(
            f"Keystone of {self._where} cannot be asked for a token: {words}; it is tried again "
            "by itself",
            reason="CLOUD_UNREACHABLE",
        )


def is_not_found_by_keystone(error: refusals.HttpError) -> bool:
    """Whether Keystone itself says so of what the credentials name; it says the same of a path that
    it does not know, in other words.
    """
    if error.http_status != 404 or error.response is None:  # noqa: PLR2004
        return False
    return _NEVER_HEARD.search(failures.said(error.response.content)) is not None
