"""Options of the check `http`. The names of VmShepherd 1.6 (`check_status`, `conn_timeout`,
`read_timeout`, `method`, `path`, `port`) mean what they meant there, apart from redirects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from health_service.addresses import AddressOptions
from health_service.options import Port, Timeout
from vmshepherd_kit.settings import Settings

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_METHOD: Final = re.compile(r"[A-Z]{1,16}")
_VISIBLE: Final = re.compile(r"[\x21-\x7e\x80-\xff]([\x20-\x7e\x80-\xff\t]*[\x21-\x7e\x80-\xff])?")
# Origin form of RFC 9112, without a fragment: what is not in it is written percent-encoded.
_PATH: Final = re.compile(r"/[!-\"$-~]*")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_NAME: Final = re.compile(r"[A-Za-z0-9_*-][A-Za-z0-9._-]{0,252}")
_RANGE: Final = re.compile(r"([2-5]\d\d)(?:\s*-\s*([2-5]\d\d))?")
_RESERVED: Final = frozenset(
    {"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"}
)
_REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE"})

Text = Annotated[str, Field(max_length=4096)]


class Tls(Settings):
    """How to speak TLS."""

    enabled: bool = Field(default=True, description="False: plain HTTP, as without `tls`.")
    verify: bool = Field(
        default=True,
        description="The certificate must be trusted, and valid for server_name or the address.",
    )
    server_name: str | None = Field(
        default=None, description="Name to ask for (SNI) and to verify; default: the address."
    )
    ca_file: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None,
        description="Trust these CAs alone; a path beneath the prober's configuration directory.",
    )

    @field_validator("server_name")
    @classmethod
    def _is_name(cls, name: str | None) -> str | None:
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError("must be a host name")
        return name


class HttpOptions(AddressOptions):
    """Options of the check `http`."""

    method: str = Field(default="GET", description="Any method but CONNECT and TRACE.")
    path: Annotated[str, Field(max_length=2048)] = Field(
        default="/", description="Path and query, beginning with /, percent-encoded."
    )
    port: Port | None = Field(default=None, description="Default: 80, with TLS 443.")
    check_status: int | str | Annotated[list[int | str], Field(max_length=100)] = Field(
        default=200,
        validation_alias=AliasChoices("check_status", "expected_status"),
        description='Statuses that are healthy: 200, "200-299", [200, 204, "300-399"].',
    )
    headers: Annotated[dict[str, str], Field(max_length=50)] = Field(
        default={}, description="Headers to send; they are never shown in messages."
    )
    host: str | None = Field(
        default=None, description="The Host header; default: tls.server_name or address:port."
    )
    body: Text | Annotated[list[Text], Field(max_length=16)] = Field(
        default=[], description="Text, or texts, all within the first 64 KiB of the body."
    )
    scheme: Literal["http", "https"] | None = Field(
        default=None, description="https is a short form of `tls: {}`."
    )
    tls: Tls | None = Field(default=None, description="Speak TLS.")
    conn_timeout: Timeout = Field(
        default=timedelta(seconds=1),
        description="For the TCP connection.",
        json_schema_extra={"default": 1},
    )
    read_timeout: Timeout = Field(
        default=timedelta(seconds=1),
        description="From then to the end of the headers, or of a body that is judged; with TLS.",
        json_schema_extra={"default": 1},
    )

    @property
    def is_tls(self) -> bool:
        """Whether to speak TLS."""
        return self.tls.enabled if self.tls else self.scheme == "https"

    @cached_property
    def texts(self) -> tuple[bytes, ...]:
        """The texts that the body must contain."""
        texts = [self.body] if isinstance(self.body, str) else self.body
        return tuple(text.encode() for text in texts if text)

    @property
    def expected_text(self) -> str:
        """The expected statuses, for people."""
        return ", ".join(_listed(self.check_status))

    def is_expected(self, status: int) -> bool:
        """Whether a healthy VM answers with this status."""
        return any(low <= status <= high for low, high in self._statuses)

    def has_header(self, name: str) -> bool:
        """Whether `headers` set this one, in whatever case."""
        return name.lower() in self._header_names

    @cached_property
    def _statuses(self) -> tuple[tuple[int, int], ...]:
        return tuple(_range(text) for text in _listed(self.check_status))

    @cached_property
    def _header_names(self) -> frozenset[str]:
        return frozenset(name.lower() for name in self.headers)

    @field_validator("method")
    @classmethod
    def _is_method(cls, method: str) -> str:
        method = method.upper()
        if not _METHOD.fullmatch(method) or method in _REFUSED_METHODS:
            raise ValueError("must be an HTTP method other than CONNECT and TRACE")
        return method

    @field_validator("path")
    @classmethod
    def _is_path(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError("must begin with /")
        if not _PATH.fullmatch(path):
            raise ValueError("must be a path and query only; write other characters as %XX")
        return path

    @field_validator("check_status")
    @classmethod
    def _are_statuses(cls, value: int | str | list[int | str]) -> int | str | list[int | str]:
        texts = list(_listed(value))
        if not texts:
            raise ValueError("must name at least one status")
        for text in texts:
            _range(text)
        return value

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError("a header's name has characters that HTTP does not allow")
            if name.lower() in _RESERVED:
                raise ValueError(f"{name} is set by the prober itself")
            if len(value) > 4096 or (value and not _VISIBLE.fullmatch(value)):  # noqa: PLR2004
                raise ValueError(f"the value of {name} is too long or not one line of Latin-1 text")
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("a header is given twice")
        return headers

    @field_validator("host")
    @classmethod
    def _is_host(cls, host: str | None) -> str | None:
        if host is not None and not _HOST.fullmatch(host):
            raise ValueError("must be a host name or address, with or without :port")
        return host

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.tls and self.tls.enabled and self.scheme == "http":
            raise ValueError("scheme: http contradicts tls")
        if self.tls and not self.tls.enabled and self.scheme == "https":
            raise ValueError("scheme: https contradicts tls.enabled: false")
        if self.method == "HEAD" and self.texts:
            raise ValueError("an answer to HEAD has no body to be matched")
        return self


def _listed(statuses: int | str | list[int | str]) -> Iterator[str]:
    for one in statuses if isinstance(statuses, list) else [statuses]:
        yield from (part.strip() for part in str(one).split(","))


def _range(text: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    if not found:
        raise ValueError("must be statuses from 200 to 599, or ranges of them: 200, 204, 300-399")
    low, high = int(found[1]), int(found[2] or found[1])
    if low > high:
        raise ValueError("a range begins with its lower status")
    return low, high
