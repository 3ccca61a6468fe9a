"""One login, and in plain words why it fails: for checks alone, never for work.

`examine` calls it in a thread.  Keystone says the same sentence of a wrong password, an unknown
project and a missing role; which one it is shows a second login without a project.  Nothing is kept
here, and no secret is part of any sentence.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import requests
from keystoneauth1 import exceptions as refusals
from keystoneauth1 import session
from keystoneauth1.access import AccessInfo
from keystoneauth1.identity import v3
from openstack.config.cloud_region import CloudRegion

from vmshepherd_kit.errors import Refused

from .credentials import Credentials
from .failures import words
from .login import is_not_found_by_keystone

# The last two are those of web pages.
_NO_KEYSTONE: Final = (
    refusals.DiscoveryFailure,
    refusals.NotFound,
    refusals.InvalidResponse,
    refusals.MethodNotAllowed,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Passport:
    """What the cloud says of whoever logged in."""

    user: str
    project: str
    roles: tuple[str, ...]
    regions: tuple[str, ...]
    """All that the catalogue knows."""
    issued: datetime | None
    """When, by the cloud's clock, to the second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """Why there is no login, and what a person can do."""

    message: str
    way_out: str


def log_in(credentials: Credentials, *, timeout_seconds: float) -> Passport | Wrong:
    """Log in as the driver would.  Blocks."""
    try:
        region = credentials.region()
    except Refused as e:
        return Wrong(message=e.message, way_out="correct {options}, or the files that it names")
    with requests.Session() as client:
        asking = _session(region, client, timeout_seconds)
        try:
            passport = _passport(region.get_auth().get_access(asking))  # type: ignore[union-attr]
            return passport if passport.project else _nowhere(passport, region, asking)
        except refusals.ClientException as e:
            return _why(e, region, asking)


def _session(region: CloudRegion, client: requests.Session, seconds: float) -> session.Session:
    verify, cert = region.get_requests_verify_args()
    return session.Session(
        auth=region.get_auth(), session=client, verify=verify, cert=cert, timeout=seconds
    )


def _passport(told: AccessInfo) -> Passport:
    catalog = told.service_catalog.catalog if told.has_service_catalog() else ()
    regions = {
        str(endpoint.get("region") or "")
        for service in catalog
        for endpoint in service.get("endpoints") or ()
    }
    return Passport(
        user=told.username or told.user_id or "",
        project=told.project_name or told.project_id or "",
        roles=tuple(sorted(told.role_names or ())),
        regions=tuple(sorted(regions - {""})),
        issued=_issued(told),
    )


def _issued(told: AccessInfo) -> datetime | None:
    try:
        return told.issued
    except (KeyError, ValueError):
        return None


def _why(error: refusals.ClientException, region: CloudRegion, asking: session.Session) -> Wrong:
    url = _auth(region).get("auth_url", "")
    if isinstance(error, refusals.Unauthorized) or _is_unknown(error, region):
        return _unauthorized(error, region, asking)
    if isinstance(error, refusals.SSLError):
        return _untrusted(error, url)
    if isinstance(error, refusals.ConnectionError):
        return _unreachable(error, url)
    if isinstance(error, _NO_KEYSTONE):
        return Wrong(
            message=f"there is no Keystone at {url}: {words(error)}",
            way_out="correct auth_url in {options}: most often it ends in /v3",
        )
    if isinstance(error, refusals.BadRequest):
        return Wrong(
            message=f"Keystone at {url} finds the credentials not whole: {words(error)}",
            way_out="give in {options} what it names; a domain is user_domain_name or "
            "project_domain_name, mostly `Default`",
        )
    return Wrong(
        message=f"Keystone at {url} gives no token: {words(error)}",
        way_out="see what the cloud says; when it is at fault, wait for it",
    )


def _unauthorized(
    error: refusals.ClientException, region: CloudRegion, asking: session.Session
) -> Wrong:
    auth = _auth(region)
    if "password" not in auth:
        what = "application credential" if _is_application(auth) else "token"
        return Wrong(
            message=f"Keystone does not accept the {what}: {words(error)}",
            way_out=f"make another {what}: this one is wrong, has expired or was revoked",
        )
    user, domain = auth.get("username") or auth.get("user_id"), auth.get("user_domain_name")
    projects = _projects(auth, asking)
    if projects is None:
        return Wrong(
            message=f"Keystone does not accept user {user!r} of domain {domain!r} with this "
            f"password: {words(error)}",
            way_out="correct username, password or user_domain_name in {options}",
        )
    project = auth.get("project_name") or auth.get("project_id")
    return Wrong(
        message=f"the password of user {user!r} is right, but project {project!r} does not exist "
        f"or the user has no role in it; projects of the user: {', '.join(projects) or 'none'}",
        way_out="name one of those projects in {options}, or have the cloud's administrator give "
        "the user a role",
    )


def _nowhere(passport: Passport, region: CloudRegion, asking: session.Session) -> Wrong:
    """Keystone lets in whoever names no project, and shows them no service."""
    auth = _auth(region)
    projects = _projects(auth, asking) if "password" in auth else None
    named = f"; projects of the user: {', '.join(projects)}" if projects else ""
    return Wrong(
        message=f"user {passport.user!r} may log in, but no project is named{named}",
        way_out="name one by project_name, with project_domain_name, in {options}",
    )


def _projects(auth: Mapping[str, Any], asking: session.Session) -> Sequence[str] | None:
    """The projects that the user may use; None when the user is not known at all."""
    plain = v3.Password(
        auth_url=auth["auth_url"],
        username=auth.get("username"),
        user_id=auth.get("user_id"),
        user_domain_name=auth.get("user_domain_name"),
        user_domain_id=auth.get("user_domain_id"),
        password=auth["password"],
        unscoped=True,
    )
    url = f"{str(auth['auth_url']).rstrip('/').removesuffix('/v3')}/v3/auth/projects"
    try:
        told = asking.get(url, auth=plain).json()
    except refusals.ClientException:
        return None
    return [str(each["name"]) for each in told.get("projects", ())]


def _untrusted(error: refusals.ClientException, url: str) -> Wrong:
    bad = [e for e in _chain(error) if isinstance(e, ssl.SSLCertVerificationError)]
    if bad:
        return Wrong(
            message=f"the certificate of {url} is not trusted: {bad[0].verify_message}",
            way_out="name the authority that signed it by ca_file in {options}",
        )
    said = [e.reason for e in _chain(error) if isinstance(e, ssl.SSLError) and e.reason]
    return Wrong(
        message=f"no TLS with {url}: {said[0] if said else words(error)}",
        way_out="if the cloud speaks plain HTTP there, write http:// in auth_url",
    )


def _unreachable(error: refusals.ClientException, url: str) -> Wrong:
    causes = list(_chain(error))
    if any(isinstance(each, socket.gaierror) for each in causes):
        return Wrong(
            message=f"the host name in {url} cannot be resolved",
            way_out="correct auth_url in {options}, or this host's name service",
        )
    if any(isinstance(each, ConnectionRefusedError) for each in causes):
        return Wrong(
            message=f"nobody listens at {url}: the connection is refused",
            way_out="correct host and port of auth_url in {options}, or have Keystone started",
        )
    if isinstance(error, refusals.ConnectTimeout):
        return Wrong(
            message=f"{url} gives no answer in time",
            way_out="see whether a firewall lies between, or whether a proxy is needed",
        )
    return Wrong(
        message=f"{url} cannot be reached: {words(error)}",
        way_out="correct auth_url in {options}, or wait for the cloud",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error with all that led to it, however the libraries hid it."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            yield each
            waiting += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]


def _auth(region: CloudRegion) -> Mapping[str, Any]:
    found: Mapping[str, Any] = region.config.get("auth", {})
    return found


def _is_unknown(error: refusals.ClientException, region: CloudRegion) -> bool:
    """Keystone answers 404 to a token or an application credential of which it never heard."""
    is_told = isinstance(error, refusals.HttpError) and is_not_found_by_keystone(error)
    return is_told and "password" not in _auth(region)


def _is_application(auth: Mapping[str, Any]) -> bool:
    return any(key.startswith("application_credential") for key in auth)
