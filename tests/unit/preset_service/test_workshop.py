"""Files → declarations, each on its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import pytest

from preset_service import reading
from preset_service.book import Declaration
from preset_service.port import File, Place, PresetSource, Problem, Reference, Trait, Tree
from preset_service.schema import Defaults
from preset_service.workshop import Workshop
from vmshepherd_kit.testing import FakeClock


class Attachments:
    """A source of which only the files of user data are asked for."""

    traits: ClassVar[frozenset[Trait]] = frozenset()
    location = "memory"

    def __init__(self, files: Mapping[str, bytes | Problem]) -> None:
        self.files = files
        self.batches: list[int] = []

    @classmethod
    def open(
        cls, options: Mapping[str, Any], *, place: Place
    ) -> AbstractAsyncContextManager[PresetSource]:
        raise NotImplementedError

    async def read(self) -> Tree:
        raise NotImplementedError

    async def fetch(self, wanted: Sequence[Reference]) -> Sequence[bytes | Problem]:
        self.batches.append(len(wanted))
        return [self.files[reference.path] for reference in wanted]

    def changes(self) -> AsyncGenerator[None, None]:
        raise NotImplementedError


def workshop(**files: bytes | Problem) -> Workshop:
    return Workshop(Attachments(files), defaults=Defaults(), clock=FakeClock())


def file(path: str, text: str) -> File:
    return File(path=path, content=text.encode())


def user_data(declaration: Declaration) -> str:
    assert declaration.spec is not None, declaration.findings
    return declaration.spec.user_data


async def test_one_bad_file_leaves_the_others_alone() -> None:
    files = [
        file("a.yaml", "count: 1\nuserdata: 'on {{ name }}'"),
        file("b.yaml", "count: ]"),
        file("c.yaml", "count: 1\nuserdata: '{{ nothing }}'"),
        file("d.yaml", "count: 1\nuserdata: file://absent"),
        File(path="e.yaml", content=Problem("cannot be read")),
        file("f.yaml", "count: 1\nuserdata: file://script"),
    ]
    shop = workshop(absent=Problem("there is no such file"), script=b"of {{ name }}")
    declared = await shop.declarations(files, {})
    assert [each.file for each in declared] == [each.path for each in files]
    assert user_data(declared[0]) == "on a"
    assert user_data(declared[5]) == "of f"
    broken = declared[1:5]
    assert all(each.spec is None and len(each.findings) == 1 for each in broken)
    assert [each.findings[0].line for each in broken] == [1, 2, 2, 0]


async def test_a_faulty_template_is_a_finding_at_its_key() -> None:
    [declared] = await workshop().declarations(
        [file("a.yaml", "count: 1\n\nuserdata: |\n  echo {{ iaas.password }}")], {}
    )
    [finding] = declared.findings
    assert (finding.file, finding.line, finding.key) == ("a.yaml", 3, "userdata")
    assert "'iaas' is undefined" in finding.message


async def test_files_of_user_data_are_fetched_in_one_batch_and_once_each() -> None:
    source = Attachments({"one": b"1", "two": b"2"})
    shop = Workshop(source, defaults=Defaults(), clock=FakeClock())
    texts = ["file://one", "file://two", "plain", "file://one"]
    files = [file("a.yaml", f"count: 1\nname: n{i}\nuserdata: {t}") for i, t in enumerate(texts)]
    declared = await shop.declarations(
        [File(path=f"{i}.yaml", content=each.content) for i, each in enumerate(files)], {}
    )
    assert [user_data(each) for each in declared] == ["1", "2", "plain", "1"]
    assert sum(source.batches) <= 4
    assert len(source.batches) == 1


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b"])
async def test_user_data_that_are_no_text_are_refused(content: bytes) -> None:
    shop = workshop(script=content)
    [declared] = await shop.declarations([file("a.yaml", "count: 1\nuserdata: file://script")], {})
    assert declared.spec is None


async def test_a_broken_file_keeps_the_name_that_it_held() -> None:
    [declared] = await workshop().declarations(
        [file("a.yaml", "name: new\ncount: x")], {"a.yaml": "old"}
    )
    assert declared.name == "old"


async def test_a_text_that_has_not_changed_is_not_parsed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = workshop()
    first = await shop.declarations([file("a.yaml", "count: 1")], {})
    monkeypatch.setattr(reading, "draft", None)
    assert await shop.declarations([file("a.yaml", "count: 1")], {}) == first


async def test_changed_user_data_change_the_declaration_of_an_unchanged_file() -> None:
    source = Attachments({"script": b"old"})
    shop = Workshop(source, defaults=Defaults(), clock=FakeClock())
    files = [file("a.yaml", "count: 1\nuserdata: file://script")]
    [before] = await shop.declarations(files, {})
    source.files = {"script": b"new"}
    [after] = await shop.declarations(files, {})
    assert (user_data(before), user_data(after)) == ("old", "new")


async def test_a_checked_text_is_read_like_a_file() -> None:
    shop = workshop(script=b"of {{ name }}")
    declared = await shop.check("count: 1\nuserdata: file://script", file="web.yaml")
    assert declared.name == "web"
    assert user_data(declared) == "of web"
    assert (await shop.check("count: x", file="web.yaml")).findings


async def test_a_doubtful_file_is_used_and_its_doubts_stay_with_it() -> None:
    text = "count: 1\npolicy: {canary: 2}\nuserdata: file://script"
    [declared] = await workshop(script=b"x").declarations([file("a.yaml", text)], {})
    assert user_data(declared) == "x"
    assert [each.key for each in declared.findings] == ["policy.canary"] * 2
    broken = workshop(script=Problem("there is no such file"))
    [refused] = await broken.declarations([file("a.yaml", text)], {})
    assert refused.spec is None
    assert [each.key for each in refused.findings] == ["userdata"] + ["policy.canary"] * 2
