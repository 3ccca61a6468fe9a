"""A proxy in front of the real cloud, for what the cloud itself cannot be made to do.

    with Proxy(place) as proxy:
        proxy.auth_url                                   # log in here: the catalog leads through
        rule = proxy.on("compute", "POST", "/servers", Refusal(status=503), times=1)
        proxy.calls["compute POST /servers"]             # what was asked, by kind

Every API has a port of its own.  Wherever the cloud names an address of its own, in the catalog or
in a link to the next page, the proxy's stands in its place.  Runs in a thread with its own loop.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from tests.openstack.cloud.place import HOST, Place
from tests.openstack.faults import Fault
from tests.openstack.gateway import Exchange, Gateway

# By the types of the catalog.
APIS: Final = {
    "identity": "keystone",
    "image": "glance",
    "placement": "placement",
    "network": "neutron",
    "compute": "nova",
    "block-storage": "cinder",
}
_ID: Final = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
_VERSION: Final = re.compile(r"^/v[0-9.]+(?=/|$)")


@dataclass
class Rule:
    """Which requests a fault meets; the first rule that fits decides."""

    service: str
    method: str
    path: re.Pattern[str]
    fault: Fault
    # None: as often as they come.
    times: int | None = None
    # How many pass before it begins.
    after: int = 0
    probability: float = 1.0
    # Whom it has met.
    met: list[str] = field(default_factory=list)

    def fits(self, service: str, method: str, path: str) -> bool:
        """Whether this is one of its requests."""
        of_kind = self.service in {service, "*"} and self.method in {method, "*"}
        return of_kind and self.path.fullmatch(path) is not None

    async def is_met(self) -> bool:
        """Whether it has met anybody, for `eventually`."""
        return bool(self.met)


class Proxy:
    """All APIs of one cloud."""

    def __init__(self, place: Place, *, seed: int = 1) -> None:
        self.rules: list[Rule] = []
        # `compute GET /servers/{id}`: no version, no query.
        self.calls: Counter[str] = Counter()
        # The servers that were made through it, in their order.
        self.made: list[str] = []
        self._place = place
        self._dice = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._gateways = {
            service: Gateway(place.port(name), partial(self._judge, service))
            for service, name in APIS.items()
        }

    def __enter__(self) -> Self:
        self._thread.start()
        ports = self._wait(self._open())
        self._addresses = {
            self._place.url(name).encode(): f"http://{HOST}:{ports[service]}".encode()
            for service, name in APIS.items()
        }
        for gateway in self._gateways.values():
            gateway.addresses = self._addresses
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def auth_url(self) -> str:
        """Keystone's, through the proxy."""
        return f"{self.url('identity')}/v3"

    def url(self, service: str) -> str:
        """Where one API is reached, without its version."""
        return f"http://{HOST}:{self._gateways[service].port}"

    def on(
        self,
        service: str,
        method: str,
        path: str,
        fault: Fault,
        *,
        times: int | None = None,
        after: int = 0,
        probability: float = 1.0,
    ) -> Rule:
        """From now on: the fault for requests of this kind.

        `*` is any service or method.  The path is a regular expression for all of it, without
        version and query: `/servers/detail`, `/servers/[^/]+`.
        """
        rule = Rule(
            service=service,
            method=method,
            path=re.compile(path),
            fault=fault,
            times=times,
            after=after,
            probability=probability,
        )
        self.rules.append(rule)
        return rule

    @contextmanager
    def while_(
        self, service: str, method: str, path: str, fault: Fault, **more: Any
    ) -> Iterator[Rule]:
        """The same, within the block alone."""
        rule = self.on(service, method, path, fault, **more)
        try:
            yield rule
        finally:
            self.rules.remove(rule)

    def calm(self) -> None:
        """No faults any more."""
        self.rules.clear()

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """What is asked within the block; filled in at its end."""
        before = self.calls.copy()
        during: Counter[str] = Counter()
        yield during
        during.update(self.calls - before)

    def _judge(self, service: str, exchange: Exchange) -> Fault:
        """What becomes of a request."""
        exchange.newest = self.made
        path = _VERSION.sub("", exchange.path.partition("?")[0]) or "/"
        self.calls[f"{service} {exchange.method} {_ID.sub('{id}', path)}"] += 1
        for rule in list(self.rules):
            if rule.fits(service, exchange.method, path) and self._strikes(rule):
                rule.met.append(f"{exchange.method} {exchange.path}")
                return rule.fault
        return Fault()

    def _strikes(self, rule: Rule) -> bool:
        if rule.after > 0:
            rule.after -= 1
            return False
        if rule.times is not None and len(rule.met) >= rule.times:
            return False
        return self._dice.random() < rule.probability

    async def _open(self) -> dict[str, int]:
        return {service: await gateway.open() for service, gateway in self._gateways.items()}

    async def _close(self) -> None:
        for gateway in self._gateways.values():
            await gateway.close()

    def _wait(self, coroutine: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(30)
