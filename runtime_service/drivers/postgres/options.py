"""The options of the driver `postgres`: where the database is, and who asks.

Those of VmShepherd 1.6's driver (`host, port, database, user, password, pool_size`) mean what they
did.  A password is never part of a text that this module makes.
"""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from vmshepherd_kit.errors import Refused
from vmshepherd_kit.settings import Duration, Settings

Port = Annotated[int, Field(ge=1, le=65535)]
Patience = Annotated[Duration, Field(ge=timedelta(milliseconds=100), le=timedelta(hours=1))]
SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]

_DEFAULT_PORT: Final = 5432


def _listed(value: object) -> object:
    """A list of what is written as one, or with commas between."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int) else value


def _hidden(value: object) -> object:
    # YAML reads a password of digits as a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Tls(Settings):
    """Files of the connection's encryption."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class PostgresOptions(Settings):
    """What may be set of it."""

    host: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed)] = (
        "127.0.0.1",
    )
    port: Annotated[tuple[Port, ...], BeforeValidator(_listed)] = (_DEFAULT_PORT,)
    database: str = "vmshepherd"
    user: str = "vmshepherd"
    password: Annotated[SecretStr | None, BeforeValidator(_hidden)] = None
    password_file: Path | None = None
    db_schema: str = Field(default="vmshepherd", alias="schema", pattern="^[a-z_][a-z0-9_]{0,47}$")
    pool_size: int = Field(default=10, ge=1, le=1000)
    sslmode: SslMode = "prefer"
    tls: Tls = Tls()
    connect_timeout: Patience = timedelta(seconds=2)
    statement_timeout: Patience = timedelta(seconds=3)
    max_events: int = Field(default=100_000, ge=1, le=100_000_000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.port) not in {1, len(self.host)}:
            raise ValueError("port must be one for all hosts, or one for each of them")
        if self.password and self.password_file:
            raise ValueError("password and password_file are both set: remove one")
        if self.tls != Tls() and self.sslmode in {"disable", "prefer"}:
            raise ValueError("tls is set: sslmode must be require, verify-ca or verify-full")
        return self

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports, in the order in which they are tried."""
        ports = self.port * len(self.host) if len(self.port) == 1 else self.port
        return tuple(zip(self.host, ports, strict=True))

    def secret(self, base_dir: Path) -> str | None:
        """The password as it is now; None: that of PGPASSWORD, or of the file that libpq reads.

        Refused when its file cannot be read.
        """
        if self.password_file is None:
            return self.password.get_secret_value() if self.password else None
        path = base_dir / self.password_file
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as e:
            raise _unreadable("password_file", path) from e

    def encryption(self, base_dir: Path) -> ssl.SSLContext | Literal["prefer", False]:
        """How connections are encrypted.  Refused when a file cannot be read."""
        if self.sslmode == "disable":
            return False
        if self.sslmode == "prefer":
            return "prefer"
        ca = base_dir / self.tls.ca if self.tls.ca else None
        try:
            context = ssl.create_default_context(cafile=ca)
            if self.tls.cert:
                key = base_dir / self.tls.key if self.tls.key else None
                context.load_cert_chain(base_dir / self.tls.cert, key)
        except OSError as e:
            raise _unreadable("tls", ca or base_dir / (self.tls.cert or "")) from e
        context.check_hostname = self.sslmode == "verify-full"
        context.verify_mode = ssl.CERT_NONE if self.sslmode == "require" else ssl.CERT_REQUIRED
        return context


def _unreadable(key: str, path: Path) -> Refused:
    return Refused(
        f"{path} cannot be read: let the user of this process read it, or correct "
        f"runtime.options.{key}",
        reason="STORE_UNUSABLE",
    )
