"""The files of one VM: all that is known of it, and all that outlives the service.

    vm.json        what it was made as, or rebuilt as: replaced whole, or not at all
    metadata.json  its metadata, for people to edit; the marker stands in vm.json alone
    alive          locked (flock) as long as any process of the VM lives
    birth          boot id and stat line of its process, written by that process itself
    ended          how that process ended, when we saw it
    log            what it says
    user-data      its user data

Whatever else is there is the VM's own disk, and goes when it is rebuilt.  A folder appears whole,
by a rename, or not at all.  Everything here blocks, shortly.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from vmshepherd_kit.errors import NoCapacity, Unavailable

from ... import marker
from ...domain import Order, VmId
from . import proc

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EAGAIN})
_OURS: Final = frozenset(
    {"vm.json", "metadata.json", "alive", "birth", "birth.old", "ended", "log", "user-data"}
)
_PREPARED: Final = frozenset({"vm.json.new", "user-data.new"})
_CONSOLE_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = 2048
_TAIL_LINES: Final = 2
_TAIL_CHARACTERS: Final = 240


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a VM was made as."""

    vm_id: VmId
    name: str
    create_time: str
    address: str
    flavor: str
    image: str
    zone: str
    key_name: str
    metadata: Mapping[str, str]
    fingerprint: str
    """Of the order: another one under the same request id is refused."""
    argv: list[str]
    env: Mapping[str, str]

    def __post_init__(self) -> None:
        """ValueError when a marker or an aware time is missing."""
        if self.created.tzinfo is None or not self.metadata.keys() >= marker.KEYS:
            raise ValueError("these are no facts of a VM")

    @property
    def created(self) -> datetime:
        """When."""
        return datetime.fromisoformat(self.create_time)


_FACTS: Final = TypeAdapter(Facts)


def fingerprint(order: Order) -> str:
    """The same for each attempt at the same VM."""
    spec = {**asdict(order.spec), "preset": order.marker.preset}
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


class Folder:
    """The folder of one VM."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metadata: tuple[tuple[int, int], Mapping[str, str] | None] | None = None

    def facts(self) -> Facts:
        """What the VM was made as.  ValueError when it cannot be told."""
        try:
            facts = _FACTS.validate_json((self.path / "vm.json").read_bytes())
        except (OSError, ValueError) as e:
            raise ValueError(f"{self.path}: vm.json is unreadable") from e
        if facts.vm_id != self.path.name:
            raise ValueError(f"{self.path}: vm.json is that of {facts.vm_id}")
        return facts

    def metadata(self) -> Mapping[str, str] | None:
        """What people made of its metadata; None when the file is no mapping of texts."""
        path = self.path / "metadata.json"
        try:
            stat = path.stat()
        except OSError:
            return None
        version = (stat.st_mtime_ns, stat.st_size)
        if self._metadata is None or self._metadata[0] != version:
            self._metadata = (version, _texts(path))
        return self._metadata[1]

    def process(self) -> proc.Process | None:
        """The process that was started last, dead or alive; None when it wrote nothing yet."""
        with suppress(OSError, ValueError, IndexError):
            return proc.parse_birth((self.path / "birth").read_text())
        return None

    def was_started(self) -> bool:
        """Whether any process was ever started here."""
        return any(self._has(name) for name in ("birth", "birth.old"))

    def is_alive(self) -> bool:
        """Whether any process holds the lock."""
        try:
            with self.locked():
                return False
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False

    @contextmanager
    def locked(self) -> Iterator[int]:
        """The descriptor of the lock, held.  BlockingIOError when a process of the VM holds it."""
        fd = os.open(self.path / "alive", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield fd
        finally:
            os.close(fd)

    def forget_process(self) -> None:
        """Make room for the next process; that there was one stays known."""
        with suppress(FileNotFoundError):
            (self.path / "birth").replace(self.path / "birth.old")
        (self.path / "ended").unlink(missing_ok=True)

    def prepare_rebuild(self, facts: Facts, user_data: str) -> None:
        """Write what the VM shall be rebuilt as beside what it is.  NoCapacity or Unavailable."""
        with no_room():
            try:
                self.forget_rebuild()
                _write(self.path / "vm.json.new", json.dumps(asdict(facts), indent=1))
                if user_data:
                    _write_user_data(self.path / "user-data.new", user_data)
            except OSError:
                self.forget_rebuild()
                raise

    def forget_rebuild(self) -> None:
        """Remove what was prepared."""
        for name in _PREPARED:
            (self.path / name).unlink(missing_ok=True)

    def rebuild(self) -> None:
        """Remove the VM's disk, then let it be what was prepared.  OSError in the middle of it.

        Interrupted, it is a VM that ended; it bears the new facts only once all else is new.
        """
        for path in list(self.path.iterdir()):
            if path.name not in _OURS | _PREPARED:
                _remove(path)
        (self.path / "user-data").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            (self.path / "user-data.new").replace(self.path / "user-data")
        (self.path / "vm.json.new").replace(self.path / "vm.json")

    def console(self, lines: int) -> str:
        """The last lines of what it said, from no more than its end.  Unavailable."""
        try:
            said = _end_of(self.path / "log", _CONSOLE_BYTES)
        except OSError as e:
            raise Unavailable(f"the VM's log cannot be read: {e.strerror}") from e
        return "\n".join(said.rstrip().split("\n")[-lines:])

    def note_end(self, how: str) -> None:
        """Write down how its process ended; lost when the disk is full, which does no harm."""
        with suppress(OSError):
            (self.path / "ended").write_text(how)

    def end(self) -> str:
        """How its process ended, and what it said last."""
        how = "its process is gone"
        with suppress(OSError):
            how = (self.path / "ended").read_text()
        said = _tail(self.path / "log")
        return f"{how}; last said: {said}" if said else how

    def _has(self, name: str) -> bool:
        return (self.path / name).exists()


class Root:
    """The folder of the VMs' folders, held by one service at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ended = path / ".terminated"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Alone in this root.  BlockingIOError when another service is there."""
        self._ended.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(fd)

    def names(self) -> set[str]:
        """Of all VMs that have a folder."""
        return {path.name for path in self.path.iterdir() if not path.name.startswith(".")}

    def folder(self, vm_id: str) -> Folder:
        """The folder of a VM, whether it is there or not."""
        return Folder(self.path / vm_id)

    def sweep(self, before: datetime) -> None:
        """Remove what a crash left half made or half removed, and what ended before that time."""
        for path in self.path.iterdir():
            is_half = path.name.startswith((".new-", ".gone-"))
            if is_half or (path.name[0] != "." and _was_never_started(path)):
                shutil.rmtree(path, ignore_errors=True)
        for path in self._ended.iterdir():
            if path.stat().st_mtime < before.timestamp():
                path.unlink()

    def make(self, facts: Facts, user_data: str) -> Folder:
        """A folder, whole.  NoCapacity or Unavailable, and nothing is left of it."""
        new = self.path / f".new-{facts.vm_id}"
        folder = self.folder(facts.vm_id)
        with no_room():
            try:
                new.mkdir(mode=0o700)
                _write(new / "vm.json", json.dumps(asdict(facts), indent=1))
                own = json.dumps(marker.without(facts.metadata), indent=1)
                _write(new / "metadata.json", own)
                _write(new / "alive", "")
                if user_data:
                    _write_user_data(new / "user-data", user_data)
                new.rename(folder.path)
            except OSError:
                shutil.rmtree(new, ignore_errors=True)
                raise
        return folder

    def remove(self, vm_id: str, now: datetime) -> None:
        """Remove a folder; that the VM was there is remembered for a while."""
        ended = self._ended / vm_id
        with suppress(OSError):  # it exists, or there is no room: neither may keep the VM
            ended.hardlink_to(self.path / vm_id / "vm.json")
            os.utime(ended, (now.timestamp(), now.timestamp()))
        self.discard(vm_id)

    def discard(self, vm_id: str) -> None:
        """Remove a folder: first as a whole, then its files."""
        gone = self.path / f".gone-{vm_id}"
        with suppress(FileNotFoundError):
            shutil.rmtree(gone, ignore_errors=True)
            (self.path / vm_id).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def ended(self, vm_id: str) -> Facts | None:
        """A VM that was there and is removed."""
        with suppress(OSError, ValueError):
            return _FACTS.validate_json((self._ended / vm_id).read_bytes())
        return None


@contextmanager
def no_room() -> Iterator[None]:
    """Turn the errors of a full disk, or of too many processes, into NoCapacity."""
    try:
        yield
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        if e.errno in _FULL:
            raise NoCapacity(f"this machine has no room for the VM: {where}{e.strerror}") from e
        raise Unavailable(f"the VM cannot be made: {where}{e.strerror}") from e


def _was_never_started(path: Path) -> bool:
    folder = Folder(path)
    return path.is_dir() and not folder.was_started() and not folder.is_alive()


def _write(path: Path, text: str, *, mode: int = 0o600) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)


def _write_user_data(path: Path, user_data: str) -> None:
    _write(path, user_data, mode=0o700 if user_data.startswith("#!") else 0o600)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _texts(path: Path) -> Mapping[str, str] | None:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(read, dict):
        return None
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in read.items()}


def _end_of(path: Path, size: int) -> str:
    # It lies where the VM may put something else in its place: a link to another's file, or a pipe,
    # whose opening would wait for ever, and which cannot be sought in.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read(size).decode(errors="replace")


def _tail(path: Path) -> str:
    try:
        lines = _end_of(path, _TAIL_BYTES).split("\n")
    except OSError:
        return ""
    said = " / ".join([line.strip() for line in lines if line.strip()][-_TAIL_LINES:])
    return "".join(c if c.isprintable() else "?" for c in said)[-_TAIL_CHARACTERS:]
