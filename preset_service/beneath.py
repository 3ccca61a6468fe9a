"""Reading files that somebody else names, without ever leaving a directory.

Drivers call it for whatever an author of presets may choose.  Symbolic links are followed as long
as they stay beneath the root, for mounted volumes are made of them; then the resolved path is
walked again, component by component and following nothing, so that whoever swaps a component in
between gains an error.  Only regular files are read, and opening one never waits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_WALK: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a FIFO for reading would wait for its writer, and a terminal could become ours.
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Signature = tuple[int, int, int, int, int]


class Refusal(Exception):
    """Why a file is not read: a sentence for the author of the preset."""


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, and by what to see whether it has changed since."""

    data: bytes
    signature: Signature


def inner_root(root: Path, name: str) -> Path:
    """The directory `name` beneath `root`, resolved; an absolute one must lie there too."""
    with _explained(name):
        return _resolved(root, Path(name))


def read(root: Path, name: str, *, limit: int) -> Content:
    """The regular file `name` beneath `root`; Refusal otherwise, a FIFO or a growing file
    included.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise Refusal(f"{name!r} must be a path beneath the directory, without '..'")
    with _explained(name):
        real_root = root.resolve(strict=True)
        relative = _resolved(root, Path(name)).relative_to(real_root)
        descriptor = _open(real_root, relative.parts)
        try:
            return _content(descriptor, name, limit)
        finally:
            os.close(descriptor)


def signature(status: os.stat_result) -> Signature:
    """What differs between two states of a file."""
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


def _resolved(root: Path, name: Path) -> Path:
    real_root = root.resolve(strict=True)
    real = (real_root / name).resolve(strict=True)
    if not real.is_relative_to(real_root):
        raise Refusal(f"{str(name)!r} leads out of the directory that it must stay in")
    return real


def _open(root: Path, parts: tuple[str, ...]) -> int:
    if not parts:
        raise IsADirectoryError
    directory = os.open(root, _WALK)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _WALK, dir_fd=directory)
            os.close(directory)
            directory = inner
        return os.open(parts[-1], _OPEN, dir_fd=directory)
    finally:
        os.close(directory)


def _content(descriptor: int, name: str, limit: int) -> Content:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise Refusal(f"{name!r} is no regular file")
    if before.st_size > limit:
        raise Refusal(f"{name!r} is longer than {limit} bytes")
    data = b"".join(_chunks(descriptor, limit + 1))
    after = os.fstat(descriptor)
    if signature(before) != signature(after) or len(data) != before.st_size:
        raise Refusal(f"{name!r} is being written")
    return Content(data, signature(before))


def _chunks(descriptor: int, most: int) -> Iterator[bytes]:
    while most > 0 and (chunk := os.read(descriptor, most)):
        most -= len(chunk)
        yield chunk


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as e:
        raise Refusal(f"there is no file {name!r}") from e
    except (IsADirectoryError, NotADirectoryError) as e:
        raise Refusal(f"{name!r} is no regular file") from e
    except (OSError, ValueError, RuntimeError) as e:
        # RuntimeError is how Path tells of a loop of links.
        why = e.strerror if isinstance(e, OSError) and e.strerror else "not a usable path"
        raise Refusal(f"{name!r} cannot be read: {why}") from e
