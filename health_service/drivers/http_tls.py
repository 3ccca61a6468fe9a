"""The TLS side of the check `http`: contexts made from its options, kept for the next request.

CA files lie beneath one directory of the prober: options come from afar, and must not open
whatever file they like.
"""

from __future__ import annotations

import asyncio
import ssl
import stat
from pathlib import Path
from typing import Final

from health_service.drivers.http_options import Tls
from vmshepherd_kit.errors import BadRequest, Violation

_MOST_BYTES: Final = 1024 * 1024
_MOST_KEPT: Final = 32

_Key = tuple[bool, Path | None, int]


class Contexts:
    """Makes one context for each combination of options, and again when a CA file has changed."""

    def __init__(self, files: Path) -> None:
        self._files = files
        self._kept: dict[_Key, ssl.SSLContext] = {}

    async def of(self, tls: Tls | None) -> ssl.SSLContext:
        """The context of these options; of none, the defaults."""
        return await asyncio.to_thread(self._of, tls or Tls())

    def _of(self, tls: Tls) -> ssl.SSLContext:
        path = self._beneath(tls.ca_file) if tls.ca_file else None
        try:
            changed = _checked(path) if path else 0
            key = (tls.verify, path, changed)
            if key not in self._kept:
                if len(self._kept) >= _MOST_KEPT:
                    self._kept.clear()
                self._kept[key] = _made(tls.verify, path)
            return self._kept[key]
        except (OSError, ValueError) as e:  # SSLError is an OSError
            raise _unusable("cannot be read as certificates in PEM format") from e

    def _beneath(self, name: str) -> Path:
        root = self._files.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise _unusable("must lie beneath the directory of the prober's configuration")
        return path


def _checked(path: Path) -> int:
    """When the file was changed last; ValueError when it is none that may be read."""
    info = path.stat()
    if not stat.S_ISREG(info.st_mode) or info.st_size > _MOST_BYTES:
        raise ValueError("no regular file, or too large")
    return info.st_mtime_ns


def _made(verify: bool, ca_file: Path | None) -> ssl.SSLContext:  # noqa: FBT001
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _unusable(why: str) -> BadRequest:
    violation = Violation("check.options.tls.ca_file", why)
    return BadRequest(
        f"check.options.tls.ca_file: {why}", reason="INVALID_SETTINGS", violations=[violation]
    )
