"""Files that somebody else names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preset_service import beneath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "file").write_text("content")
    (root / "inner" / "file").write_text("deep")
    return root


def test_a_file_beneath_the_root_is_read(root: Path) -> None:
    assert beneath.read(root, "file", limit=100).data == b"content"
    assert beneath.read(root, "inner/file", limit=100).data == b"deep"


def test_a_link_that_stays_beneath_the_root_is_followed(root: Path) -> None:
    (root / "..data").symlink_to("inner")
    (root / "link").symlink_to("..data/file")
    assert beneath.read(root, "link", limit=100).data == b"deep"


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../secret", "inner/../../secret", "..", "", ".", "inner", "absent",
     "file/x", "a\0b", "x" * 5000],
)  # fmt: skip
def test_what_is_no_file_beneath_the_root_is_refused(root: Path, name: str) -> None:
    with pytest.raises(beneath.Refusal):
        beneath.read(root, name, limit=100)


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "..", "loop"])
def test_a_link_that_leads_out_is_refused(root: Path, target: str) -> None:
    (root / "loop").symlink_to(target)
    with pytest.raises(beneath.Refusal):
        beneath.read(root, "loop", limit=100)


def test_a_linked_directory_that_leads_out_is_refused(root: Path) -> None:
    (root / "out").symlink_to("..")
    with pytest.raises(beneath.Refusal):
        beneath.read(root, "out/secret", limit=100)


def test_a_fifo_is_refused_without_waiting_for_its_writer(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with pytest.raises(beneath.Refusal, match="no regular file"):
        beneath.read(root, "fifo", limit=100)


def test_a_component_swapped_for_a_link_after_it_was_checked_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = Path.resolve

    def resolve_then_swap(path: Path, *, strict: bool = False) -> Path:
        found = resolve(path, strict=strict)
        if found == root / "inner" / "file":
            (root / "inner").rename(root / "was")
            (root / "inner").symlink_to(root.parent)
        return found

    (root.parent / "file").write_text("secret")
    monkeypatch.setattr(Path, "resolve", resolve_then_swap)
    with pytest.raises(beneath.Refusal):
        beneath.read(root, "inner/file", limit=100)


def test_a_large_file_is_refused_without_being_read(root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(1024**4)
    with pytest.raises(beneath.Refusal, match="longer than"):
        beneath.read(root, "large", limit=100)


def test_a_file_that_changes_while_it_is_read_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.read

    def read_and_grow(descriptor: int, size: int) -> bytes:
        with (root / "file").open("a") as file:
            file.write("more")
        return read(descriptor, 3)

    monkeypatch.setattr(os, "read", read_and_grow)
    with pytest.raises(beneath.Refusal, match="being written"):
        beneath.read(root, "file", limit=1000)


def test_a_root_must_lie_beneath_its_own_root(root: Path) -> None:
    assert beneath.inner_root(root, "inner") == root / "inner"
    assert beneath.inner_root(root, str(root / "inner")) == root / "inner"
    for name in ("..", "/etc", "absent"):
        with pytest.raises(beneath.Refusal):
            beneath.inner_root(root, name)
