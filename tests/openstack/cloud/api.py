"""The bare API of one project: what seeds the cloud, and what tests ask beside the driver.

Deliberately not openstacksdk: what judges the driver shares no code with it.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final, Self

_VERSIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "compute": {"OpenStack-API-Version": "compute 2.93"}
}
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_TIMEOUT_SECONDS: Final = 120


class Refused(Exception):
    """An API answered with an error."""

    def __init__(self, method: str, url: str, status: int, said: str) -> None:
        super().__init__(f"{method} {url}: {status} {said}")
        self.status = status


class Api:
    """Requests of one user in one project.  It logs in at its first request."""

    def __init__(self, keystone_url: str, *, user: str, password: str, project: str) -> None:
        self.user = user
        self.password = password
        self.project = project
        # Known from the first request on.
        self.project_id = ""
        self.user_id = ""
        self._keystone_url = keystone_url
        self.token = ""
        self.endpoints: dict[str, str] = {}

    def get(self, service: str, path: str) -> Any:
        """What is there."""
        return self.call("GET", service, path)

    def post(self, service: str, path: str, body: Any) -> Any:
        """Make it, or do it."""
        return self.call("POST", service, path, body)

    def put(self, service: str, path: str, body: Any = None) -> Any:
        """Set it."""
        return self.call("PUT", service, path, body)

    def delete(self, service: str, path: str) -> None:
        """Remove it."""
        self.call("DELETE", service, path)

    def call(self, method: str, service: str, path: str, body: Any = None) -> Any:
        """Any request, of the newest microversion; a token that does not hold is renewed once."""
        if not self.token:
            self.log_in()
        try:
            return self._call(method, service, path, body)
        except Refused as refused:
            if refused.status != 401:
                raise
        self.log_in()
        return self._call(method, service, path, body)

    def log_in(self) -> Self:
        """Take a new token."""
        default = {"id": "default"}
        user = {"name": self.user, "password": self.password, "domain": default}
        scope = {"project": {"name": self.project, "domain": default}}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = {"auth": {"identity": identity, "scope": scope}}
        said, headers = _ask("POST", f"{self._keystone_url}/auth/tokens", body, {})
        self.token = headers["X-Subject-Token"]
        self.endpoints = dict(map(_public, said["token"]["catalog"]))
        self.project_id = said["token"]["project"]["id"]
        self.user_id = said["token"]["user"]["id"]
        return self

    def _call(self, method: str, service: str, path: str, body: Any) -> Any:
        headers = {"X-Auth-Token": self.token, **_VERSIONS.get(service, {})}
        return _ask(method, self.endpoints[service] + path, body, headers)[0]


def _public(entry: Any) -> tuple[str, str]:
    urls = [found["url"] for found in entry["endpoints"] if found["interface"] == "public"]
    return entry["type"], urls[0]


def _ask(
    method: str, url: str, body: Any, headers: Mapping[str, str]
) -> tuple[Any, Mapping[str, str]]:
    is_raw = isinstance(body, bytes)
    sent = body if is_raw else json.dumps(body).encode() if body is not None else None
    kind = {"Content-Type": "application/octet-stream" if is_raw else "application/json"}
    request = urllib.request.Request(url, sent, {**kind, **headers}, method=method)
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            said = answer.read()
            return (json.loads(said) if said else None), answer.headers
    except urllib.error.HTTPError as refused:
        with refused:
            said = refused.read().decode(errors="replace")
        raise Refused(method, url, refused.code, said[:500]) from None
