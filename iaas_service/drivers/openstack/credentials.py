"""From options to a login: reads clouds.yaml, the environment and files of secrets anew each time.

`login` calls it in a thread.  What was changed on disk counts from the next login on, without a
restart.  Nothing is kept here, and no secret leaves but towards the identity service.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import requests
import yaml
from keystoneauth1 import exceptions as refusals
from keystoneauth1 import session
from keystoneauth1.access import AccessInfo
from openstack.config import OpenStackConfig
from openstack.config import loader as clouds_yaml
from openstack.config.cloud_region import CloudRegion
from openstack.exceptions import ConfigException
from pydantic import SecretStr

from vmshepherd_kit.errors import Refused

from .endpoints import SERVICES, versioned
from .options import OpenstackOptions
from .places import Place

# Of a service that tells no lifetime of its tokens.
_LIFETIME: Final = timedelta(minutes=5)

_UNUSABLE: Final = (
    ConfigException,
    refusals.ClientException,
    yaml.YAMLError,
    OSError,
    ValueError,
    # What is given does not fit auth_type.
    TypeError,
)
_OF_A_USER: Final = frozenset({"password", "v3password"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What a login gives: a token for one project, and where the services are."""

    token: str = field(repr=False)
    lifetime: timedelta
    project_id: str
    region: str
    endpoints: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """How the cloud's certificates are judged, and which one of ours is shown."""

    verify: bool | str
    cert: str | tuple[str, str] | None

    def context(self) -> ssl.SSLContext:
        """For the client of the services.  Refused when a file cannot be read."""
        ca = self.verify if isinstance(self.verify, str) else None
        try:
            context = ssl.create_default_context(cafile=ca)
            if self.cert:
                parts = (self.cert,) if isinstance(self.cert, str) else self.cert
                context.load_cert_chain(*parts)
        except OSError as e:
            files = ", ".join(map(str, filter(None, (ca, self.cert))))
            raise _unusable(f"{files}, of the TLS settings, cannot be read ({e})") from e
        if self.verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Credentials:
    """Those of one place."""

    def __init__(self, options: OpenstackOptions, place: Place, base_dir: Path) -> None:
        self._options = options
        self._place = place
        self._base_dir = base_dir

    @property
    def source(self) -> str:
        """Where they stand, for people: "" in the options themselves."""
        if self._options.is_written_out:
            return ""
        if self._options.cloud:
            return f"cloud {self._options.cloud!r} of clouds.yaml"
        return "the environment (OS_*)"

    def check(self) -> Trust:
        """That they are there and whole.  Refused when they are not."""
        verify, cert = self.region().get_requests_verify_args()
        return Trust(verify=True if verify is None else verify, cert=cert)

    def login(self) -> Access:
        """Ask the identity service.  Raises what keystoneauth raises, or Refused; blocks."""
        region = self.region()
        verify, cert = region.get_requests_verify_args()
        with requests.Session() as client:
            asking = session.Session(
                auth=region.get_auth(),
                session=client,
                verify=verify,
                cert=cert,
                timeout=self._options.http_timeout.total_seconds(),
            )
            auth = region.get_auth()
            return _access(auth.get_access(asking), region)  # type: ignore[union-attr]

    def region(self) -> CloudRegion:
        """What openstacksdk makes of them, for one login.  Refused when they are not whole."""
        try:
            # Its warnings are about keys that the suite does not use.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                region = self._read()
        except _UNUSABLE as e:
            raise _unusable(_misfit(e)) from e
        _require_user(region)
        return region

    def _read(self) -> CloudRegion:
        options = self._options
        if options.is_written_out:
            reader = OpenStackConfig(load_yaml_config=False, load_envvars=False)
            return reader.get_one(**self._written_out(), **self._common())
        files = [str(self._path(options.clouds_file))] if options.clouds_file else None
        reader = OpenStackConfig(config_files=files)
        if options.cloud and options.cloud not in reader.get_cloud_names():
            raise _missing(options.cloud, files or clouds_yaml.CONFIG_FILES)
        return reader.get_one(cloud=options.cloud, auth=self._project(), **self._common())

    def _common(self) -> dict[str, Any]:
        given = {
            "region_name": self._place.region or None,
            "interface": self._options.interface,
            "cacert": str(self._path(self._options.ca_file)) if self._options.ca_file else None,
        }
        return {key: value for key, value in given.items() if value is not None}

    def _project(self) -> dict[str, str]:
        given = {
            "project_name": self._place.project,
            "project_domain_name": self._place.project_domain,
        }
        return {key: value for key, value in given.items() if value}

    def _written_out(self) -> dict[str, Any]:
        options = self._options
        auth: dict[str, str | None] = {"auth_url": options.auth_url}
        user_domain = options.user_domain_name
        if options.application_credential_id or options.application_credential_name:
            kind = "v3applicationcredential"
            auth |= {
                "application_credential_id": options.application_credential_id,
                "application_credential_name": options.application_credential_name,
                "application_credential_secret": self._secret("application_credential_secret"),
            }
            if not options.application_credential_id:
                auth |= {"username": options.username, "user_domain_name": user_domain}
        elif options.token or options.token_file:
            kind = "v3token"
            auth |= {"token": self._secret("token"), **self._scope()}
        else:
            kind = "password"
            auth |= {
                "username": options.username,
                "password": self._secret("password"),
                "user_domain_name": user_domain,
                **self._scope(),
            }
        written = {key: value for key, value in auth.items() if value is not None}
        return {"auth_type": kind, "auth": written}

    def _scope(self) -> dict[str, str]:
        return {"project_domain_name": "Default", **self._project()}

    def _secret(self, key: str) -> str | None:
        named: Path | None = getattr(self._options, f"{key}_file")
        if named is None:
            value: SecretStr | None = getattr(self._options, key)
            return value.get_secret_value() if value else None
        path = self._path(named)
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as e:
            raise _unusable(f"{path}, which {key}_file names, cannot be read") from e

    def _path(self, path: Path) -> Path:
        return self._base_dir / path.expanduser()


def _access(told: AccessInfo, region: CloudRegion) -> Access:
    return Access(
        token=told.auth_token or "",
        lifetime=_lifetime(told),
        project_id=told.project_id or "",
        region=region.get_region_name() or "",
        endpoints={
            service: versioned(service, url)
            for service in SERVICES
            if (url := _endpoint(told, region, service))
        },
    )


def _lifetime(told: AccessInfo) -> timedelta:
    """Between two times of the same clock, the cloud's: ours may be wrong."""
    try:
        expires, issued = told.expires, told.issued
    except (KeyError, ValueError):
        return _LIFETIME
    if expires is None or issued is None:
        return _LIFETIME
    return timedelta(seconds=(expires - issued).total_seconds())


def _endpoint(told: AccessInfo, region: CloudRegion, service: str) -> str | None:
    kind = SERVICES[service]
    if override := region.get_endpoint(kind):
        return override
    if not told.has_service_catalog():
        return None
    try:
        url: str | None = told.service_catalog.url_for(
            service_type=region.get_service_type(kind),
            interface=region.get_interface(kind) or "public",
            region_name=region.get_region_name(kind) or None,
        )
    except refusals.EndpointNotFound:
        return None
    return url


def _missing(cloud: str, files: Sequence[str]) -> Refused:
    """Why there is no such cloud: openstacksdk passes over files that it cannot read."""
    there = [path for path in files if Path(path).exists()]
    if not there:
        return _unusable(
            f"there is no file {' or '.join(files)}, which cloud {cloud!r} would be of"
        )
    names = _names(there[0])
    return _unusable(f"{there[0]} has no cloud {cloud!r}; it has: {', '.join(names) or 'none'}")


def _names(path: str) -> Sequence[str]:
    try:
        said = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise _unusable(f"{path} cannot be read: {e.strerror}") from e
    except yaml.MarkedYAMLError as e:
        # Not its words: they may quote a secret.
        line = f" at line {e.problem_mark.line + 1}" if e.problem_mark else ""
        raise _unusable(f"{path} is no YAML{line}") from e
    clouds = said.get("clouds") if isinstance(said, dict) else None
    return sorted(map(str, clouds)) if isinstance(clouds, dict) else ()


def _misfit(error: BaseException) -> str:
    if isinstance(error, TypeError) and "application_credential" in str(error):
        return "an application credential needs auth_type: v3applicationcredential"
    return str(error)


def _require_user(region: CloudRegion) -> None:
    """Keystone is not asked for what nobody wrote down, nor does keystoneauth say it by an error
    of its own.
    """
    auth = region.config.get("auth") or {}
    if region.config.get("auth_type") not in _OF_A_USER:
        return
    lacking = [] if auth.get("username") or auth.get("user_id") else ["username (OS_USERNAME)"]
    lacking += [] if auth.get("password") else ["password (OS_PASSWORD)"]
    if lacking:
        raise _unusable(f"missing: {' and '.join(lacking)}")


def _unusable(why: str) -> Refused:
    return Refused(f"the credentials of the cloud cannot be used: {why}", reason="CLOUD_UNUSABLE")
