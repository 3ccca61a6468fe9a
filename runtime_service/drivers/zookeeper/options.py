"""What may be set of the driver, and the kazoo client that it makes of it.

Secrets come from the configuration, from a file or from the environment, and are never shown.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from kazoo.client import KazooClient
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from vmshepherd_kit.errors import Refused
from vmshepherd_kit.settings import Duration, Settings

_WHERE: Final = "runtime.options"
_SERVER: Final = r"^(\[[0-9A-Fa-f:.]+\]|[^\s,:/\[\]]+)(:[0-9]{1,5})?$"
_PATH: Final = re.compile(r"(/[^/\x00-\x1f\x7f-\x9f]+)+")
# ZooKeeper's own session is longer than a call: a busy process need not begin anew.
_SESSION: Final = 2
_RECONNECT: Final[Mapping[str, float]] = {"max_tries": -1, "delay": 0.1, "max_delay": 1.0}


def _listed(value: object) -> object:
    """`h1:2181,h2:2181` as well as a list."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _path(value: str) -> str:
    if not _PATH.fullmatch(value) or {".", ".."} & set(value.split("/")):
        raise ValueError("must be an absolute path such as /vmshepherd")
    return value


def _several(value: object) -> object:
    return [value] if isinstance(value, Mapping) else value


class _Secret(Settings):
    """A secret that is written here, in a file, or in a variable of the environment."""

    def _one(self, name: str, written: SecretStr | None, base_dir: Path) -> str:
        file, variable = getattr(self, f"{name}_file"), getattr(self, f"{name}_env")
        if written is not None:
            return written.get_secret_value()
        if file is not None:
            return _from_file(base_dir / file, f"{name}_file")
        return _from_environment(variable, f"{name}_env")

    def _demand_one(self, name: str) -> None:
        ways = (name, f"{name}_file", f"{name}_env")
        if sum(getattr(self, way) is not None for way in ways) != 1:
            raise ValueError(f"needs exactly one of {', '.join(ways)}")


class AddAuth(_Secret):
    """Who we are, in the words of ZooKeeper's `addauth`: for `digest`, user:password."""

    scheme: str = Field(default="digest", min_length=1)
    auth: SecretStr | None = None
    auth_file: Path | None = None
    auth_env: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        self._demand_one("auth")
        return self

    def pair(self, base_dir: Path) -> tuple[str, str]:
        """Scheme and secret."""
        return self.scheme, self._one("auth", self.auth, base_dir)


class Sasl(_Secret):
    """Who we are, by SASL."""

    mechanism: Literal["DIGEST-MD5"] = "DIGEST-MD5"
    username: str = Field(min_length=1)
    password: SecretStr | None = None
    password_file: Path | None = None
    password_env: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        self._demand_one("password")
        return self

    def understood_by_kazoo(self, base_dir: Path) -> dict[str, str]:
        """What pure-sasl is given."""
        password = self._one("password", self.password, base_dir)
        return {"mechanism": self.mechanism, "username": self.username, "password": password}


class Tls(Settings):
    """A connection that nobody on the way can read or change."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    check_hostname: bool = True

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together")
        return self

    def understood_by_kazoo(self, base_dir: Path) -> dict[str, Any]:
        """Files that can be read, for sure."""
        files = {"ca": self.ca, "certfile": self.cert, "keyfile": self.key}
        found = {name: str(_readable(base_dir / path)) for name, path in files.items() if path}
        return {"use_ssl": True, "check_hostname": self.check_hostname, **found}


class ZookeeperOptions(Settings):
    """Options of the driver `zookeeper`."""

    servers: Annotated[
        tuple[Annotated[str, Field(pattern=_SERVER)], ...], BeforeValidator(_listed)
    ] = Field(min_length=1)
    working_path: Annotated[str, AfterValidator(_path)] = "/vmshepherd"
    addauth: Annotated[tuple[AddAuth, ...], BeforeValidator(_several)] = ()
    sasl: Sasl | None = None
    tls: Tls | None = None
    timeout: Annotated[Duration, Field(ge=timedelta(milliseconds=500), le=timedelta(minutes=1))] = (
        timedelta(seconds=3)
    )
    max_events: int = Field(default=10_000, ge=1, le=100_000)

    def client(self, base_dir: Path, logger: logging.Logger) -> KazooClient:
        """A client that is not started.  Refused when a file cannot be read."""
        names_us = bool(self.addauth or self.sasl)
        return KazooClient(
            hosts=",".join(self.servers),
            timeout=_SESSION * self.timeout.total_seconds(),
            connection_retry=dict(_RECONNECT),
            auth_data=[each.pair(base_dir) for each in self.addauth],
            sasl_options=self.sasl.understood_by_kazoo(base_dir) if self.sasl else None,
            # Who is known keeps what is made to itself.
            default_acl=CREATOR_ALL_ACL if names_us else OPEN_ACL_UNSAFE,
            logger=logger,
            **(self.tls.understood_by_kazoo(base_dir) if self.tls else {}),
        )


def _from_file(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as e:
        raise _unusable(path, option, e) from e


def _from_environment(variable: str, option: str) -> str:
    if variable not in os.environ:
        raise Refused(
            f"the environment has no {variable}, which {option} in {_WHERE} names: set it",
            reason="STORE_UNUSABLE",
        )
    return os.environ[variable]


def _readable(path: Path) -> Path:
    try:
        path.read_bytes()
    except OSError as e:
        raise _unusable(path, "tls", e) from e
    return path


def _unusable(path: Path, option: str, why: Exception) -> Refused:
    reason = why.strerror if isinstance(why, OSError) else "it is no text"
    return Refused(
        f"{path} cannot be read ({reason}), which {option} in {_WHERE} names: let the user of this "
        "process read it",
        reason="STORE_UNUSABLE",
    )
