"""The options of the driver `openstack`: which cloud, under which credentials, in which places.

Those of VmShepherd 1.6 mean what they did.  A secret is never part of a text that this module
makes, and nothing here touches the network.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from vmshepherd_kit.settings import Duration, Settings

from .places import Place

Patience = Annotated[Duration, Field(ge=timedelta(milliseconds=100), le=timedelta(minutes=5))]


def _hidden(value: object) -> object:
    # YAML reads a password of digits as a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _listed(value: object) -> object:
    """A list of what is written as one, or with commas between."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


Secret = Annotated[SecretStr | None, BeforeValidator(_hidden)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed)]

_WRITTEN_OUT: Final = ("username", "application_credential_id", "application_credential_name")
_SECRETS: Final = ("password", "application_credential_secret", "token")


class OpenstackOptions(Settings):
    """What may be set of it; with nothing set, the environment (`OS_*`) says all."""

    cloud: Name | None = None
    clouds_file: Path | None = None
    auth_url: Annotated[str, Field(pattern="^https?://")] | None = None
    username: Name | None = None
    password: Secret = None
    password_file: Path | None = None
    user_domain_name: Name = "Default"
    application_credential_id: Name | None = None
    application_credential_name: Name | None = None
    application_credential_secret: Secret = None
    application_credential_secret_file: Path | None = None
    token: Secret = None
    token_file: Path | None = None
    project_name: Name | None = None
    project_domain_name: Name | None = None
    projects: Names = ()
    region: Name | None = None
    regions: Names = ()
    interface: Literal["public", "internal", "admin"] | None = None
    ca_file: Path | None = None
    http_timeout: Patience = timedelta(seconds=20)
    connections: int = Field(default=16, ge=1, le=200)
    page_size: int | None = Field(default=None, ge=1, le=10_000)
    watch_interval: Annotated[Duration, Field(ge=timedelta(milliseconds=200))] = timedelta(
        milliseconds=500
    )
    force_delete: bool = False
    horizon: Duration = timedelta(seconds=120)
    image_owner_ids: Names = ()
    shutdown_grace_period: Duration | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.cloud and self.auth_url:
            raise ValueError("cloud and auth_url are both set: remove one")
        if self.clouds_file and not self.cloud:
            raise ValueError("clouds_file is set: cloud must name one of its clouds")
        for key in _SECRETS:
            if getattr(self, key) and getattr(self, f"{key}_file"):
                raise ValueError(f"{key} and {key}_file are both set: remove one")
        self._require_credentials_fit()
        if self.projects and self._bound_to_its_project:
            raise ValueError("projects: an application credential belongs to one project alone")
        return self

    @property
    def is_written_out(self) -> bool:
        """Whether credentials stand in the options, not in clouds.yaml or the environment."""
        return self.auth_url is not None

    @property
    def places(self) -> tuple[Place, ...]:
        """All that may be used; the first is that of presets that choose none."""
        projects = _once((*((self.project_name,) if self.project_name else ()), *self.projects))
        regions = _once((*((self.region,) if self.region else ()), *self.regions))
        # Without one Keystone is asked for those of this domain.
        usual = "Default" if self.is_written_out and not self._bound_to_its_project else ""
        domain = self.project_domain_name or usual
        return tuple(
            Place(project=project, project_domain=domain, region=region)
            for project in projects or ("",)
            for region in regions or ("",)
        )

    @property
    def _bound_to_its_project(self) -> bool:
        return bool(self.application_credential_id or self.application_credential_name)

    def _require_credentials_fit(self) -> None:
        given = [key for key in (*_WRITTEN_OUT, *_SECRETS) if getattr(self, key)]
        given += [f"{key}_file" for key in _SECRETS if getattr(self, f"{key}_file")]
        if given and not self.is_written_out:
            raise ValueError(f"{given[0]} is set: auth_url must say for which cloud")
        if self.is_written_out and not given:
            raise ValueError("auth_url is set: credentials are missing, as username and password")
        if self.is_written_out and not self._bound_to_its_project and not self.places[0].project:
            raise ValueError("auth_url is set: project_name or projects must say which projects")


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
