"""From options to a login: reads clouds.yaml, the environment and files of secrets anew each time.

`login` calls it in a thread.  What was changed on disk counts from the next login on, without a
restart.  Nothing is kept here, and no secret leaves but towards the identity service.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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

from . import clouds_file, unusable
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
    # What is given does not fit auth_type, or is of another shape.
    TypeError,
    AttributeError,
    KeyError,
)
_PROJECT: Final = frozenset(
    {"project_name", "project_id", "project", "tenant_name", "tenant_id", "tenant"}
)
_PROJECT_DOMAIN: Final = frozenset({"project_domain_name", "project_domain_id"})
_REGION: Final = frozenset({"region_name"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What a login gives: a token for one project, and where the services are."""

    token: str = field(repr=False)
    lifetime: timedelta
    issued: datetime | None = None
    """By the cloud's clock, where it says so."""
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
            raise unusable.refusal(f"{files}, of the TLS settings, cannot be read ({e})") from e
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
            told = auth.get_access(asking)  # type: ignore[union-attr]
        self._require_project(told)
        return _access(told, region)

    def _require_project(self, told: AccessInfo) -> None:
        """Keystone lets in whoever names no project, and an application credential belongs to its
        own, whatever is named: no VM must be made or looked for elsewhere.
        """
        wanted = self._place.project
        if not told.project_id:
            raise unusable.refusal(
                "they name no project: say which by project_name, with project_domain_name"
            )
        if wanted not in {"", told.project_name}:
            raise unusable.refusal(f"they are of project {told.project_name}, not of {wanted}")

    def region(self) -> CloudRegion:
        """What openstacksdk makes of them, for one login.  Refused when they are not whole."""
        try:
            # Its warnings are about keys that the suite does not use.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                region = self._read()
        except _UNUSABLE as e:
            raise unusable.refusal(self._fault_of_file() or unusable.misfit(e)) from e
        unusable.require_whole(region)
        return region

    def _read(self) -> CloudRegion:
        options = self._options
        if options.is_written_out:
            reader = OpenStackConfig(load_yaml_config=False, load_envvars=False)
            return reader.get_one(**self._written_out(), **self._common())
        reader = OpenStackConfig(config_files=self._files())
        if options.cloud and options.cloud not in reader.get_cloud_names():
            raise unusable.refusal(self._fault_of_file())
        self._put_in_place(reader)
        return reader.get_one(cloud=options.cloud, auth=self._project(), **self._common())

    def _files(self) -> list[str] | None:
        named = self._options.clouds_file
        return [str(self._path(named))] if named else None

    def _fault_of_file(self) -> str:
        cloud = self._options.cloud
        files = self._files() or clouds_yaml.CONFIG_FILES
        return clouds_file.fault(files, cloud) if cloud else ""

    def _put_in_place(self, reader: OpenStackConfig) -> None:
        """Take away what clouds.yaml or the environment say of project and region, where the place
        says it: openstacksdk would go by some of it, and refuse a region beside theirs.
        """
        written = reader.cloud_config["clouds"].get(self._options.cloud or reader.default_cloud)
        if not isinstance(written, dict):
            return
        if self._place.project:
            _remove(written, _PROJECT)
        if self._place.project_domain:
            _remove(written, _PROJECT_DOMAIN)
        if self._place.region and "regions" not in written:
            _remove(written, _REGION)

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
            raise unusable.refusal(f"{path}, which {key}_file names, cannot be read") from e

    def _path(self, path: Path) -> Path:
        return self._base_dir / path.expanduser()


def _access(told: AccessInfo, region: CloudRegion) -> Access:
    return Access(
        token=told.auth_token or "",
        lifetime=_lifetime(told),
        issued=_issued(told),
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
    issued = _issued(told)
    try:
        expires = told.expires
    except (KeyError, ValueError):
        return _LIFETIME
    if expires is None or issued is None:
        return _LIFETIME
    return timedelta(seconds=(expires - issued).total_seconds())


def _issued(told: AccessInfo) -> datetime | None:
    try:
        return told.issued
    except (KeyError, ValueError):
        return None


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
    except (refusals.EndpointNotFound, ValueError):
        # ValueError, for want of a better: the catalogue has it by another name of its type, and
        # in other regions alone.
        return None
    return url


def _remove(written: dict[str, Any], keys: Collection[str]) -> None:
    for table in (written, written.get("auth") or {}):
        for key in [key for key in table if str(key).replace("-", "_") in keys]:
            del table[key]
