"""Which presets are known, and when one is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from preset_service import book
from preset_service.book import Book, Declaration, Source
from preset_service.domain import Change, Finding, Preset, PresetSpec, Removed

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
FAULT = Finding(message="wrong", file="a.yaml", line=3, key="count")


def good(name: str, file: str, count: int = 1) -> Declaration:
    return Declaration(file=file, name=name, spec=PresetSpec(count=count), name_line=1)


def broken(name: str | None, file: str) -> Declaration:
    return Declaration(file=file, name=name, spec=None, findings=(FAULT,))


class Desk:
    """A book that is turned page by page."""

    def __init__(self, *sources: str, last_good: tuple[Preset, ...] = ()) -> None:
        self.book = Book(presets={preset.name: preset for preset in last_good})
        self.now = NOON
        self.restock(*sources)

    def restock(self, *sources: str) -> list[Change]:
        listed = [Source(name=name, driver="directory", location="/p") for name in sources]
        self.book, changes = book.restocked(self.book, listed)
        return changes

    def read(self, *declared: Declaration, source: str = "s", revision: str = "r") -> list[Change]:
        self.now += timedelta(minutes=1)
        self.book, changes = book.absorb(
            self.book, source, revision=revision, declarations=declared, now=self.now
        )
        return changes

    def counts(self) -> dict[str, int | None]:
        return {name: p.spec.count if p.spec else None for name, p in self.book.presets.items()}


def test_nothing_new_is_no_change() -> None:
    desk = Desk("s")
    assert len(desk.read(good("web", "a.yaml"))) == 1
    assert desk.read(good("web", "a.yaml"), revision="other") == []


def test_a_change_bears_its_revision_and_its_time() -> None:
    desk = Desk("s")
    desk.read(good("web", "a.yaml"), revision="1")
    desk.read(good("web", "a.yaml"), good("db", "b.yaml"), revision="2")
    desk.read(good("web", "a.yaml", count=2), good("db", "b.yaml"), revision="3")
    web, db = desk.book.presets["web"], desk.book.presets["db"]
    assert (web.revision, web.changed_time) == ("3", NOON + timedelta(minutes=3))
    assert (db.revision, db.changed_time) == ("2", NOON + timedelta(minutes=2))


def test_a_broken_file_keeps_its_spec_its_hash_and_its_time() -> None:
    desk = Desk("s")
    desk.read(good("web", "a.yaml"))
    before = desk.book.presets["web"]
    [after] = desk.read(broken("web", "a.yaml"))
    assert isinstance(after, Preset)
    assert after.findings == (FAULT,)
    assert (after.spec, after.spec_hash, after.changed_time) == (
        before.spec, before.spec_hash, before.changed_time,
    )  # fmt: skip


def test_a_preset_that_was_never_good_is_shown_without_a_spec() -> None:
    desk = Desk("s")
    desk.read(broken("web", "a.yaml"), broken(None, "b.yaml"))
    assert desk.counts() == {"web": None}
    assert book.findings_of(desk.book, "s") == [FAULT, FAULT]


def test_what_a_source_read_whole_does_not_declare_is_removed_with_the_revision() -> None:
    desk = Desk("s")
    desk.read(good("web", "a.yaml"), good("db", "b.yaml"))
    assert desk.read(good("db", "b.yaml"), revision="2") == [
        Removed(name="web", source="s", revision="2")
    ]


def test_an_unreachable_source_keeps_everything_and_says_why() -> None:
    desk = Desk("s")
    desk.read(good("web", "a.yaml"))
    desk.book = book.unreachable(desk.book, "s", "no such directory")
    assert desk.counts() == {"web": 1}
    assert desk.book.sources["s"].error == "no such directory"
    assert desk.book.is_synced
    desk.read(good("web", "a.yaml"))
    assert desk.book.sources["s"].error == ""


def test_two_files_of_one_name_are_both_told_and_neither_is_used() -> None:
    desk = Desk("s")
    desk.read(good("web", "a.yaml", 1), good("web", "b.yaml", 2))
    assert desk.counts() == {"web": None}
    found = book.findings_of(desk.book, "s")
    assert [(each.file, each.key) for each in found] == [("a.yaml", "name"), ("b.yaml", "name")]
    assert desk.book.presets["web"].findings == tuple(found)


@pytest.mark.parametrize("file", ["a.yaml", "z.yaml"])
def test_a_second_claim_does_not_take_a_name_from_its_holder(file: str) -> None:
    desk = Desk("s")
    desk.read(good("web", "m.yaml", 1))
    desk.read(good("web", "m.yaml", 5), good("web", file, 9))
    assert desk.counts() == {"web": 1}
    assert desk.book.presets["web"].file == "m.yaml"


def test_breaking_the_holder_does_not_hand_its_name_to_another() -> None:
    desk = Desk("s")
    desk.read(good("web", "m.yaml", 1))
    desk.read(broken("web", "m.yaml"), good("web", "z.yaml", 9))
    assert desk.counts() == {"web": 1}


def test_a_broken_file_that_only_seems_to_mean_a_name_disturbs_nobody() -> None:
    desk = Desk("s")
    desk.read(good("web", "m.yaml", 1))
    desk.read(good("web", "m.yaml", 2), broken("web", "web.yaml"))
    assert desk.counts() == {"web": 2}
    assert desk.book.presets["web"].findings == ()
    assert book.findings_of(desk.book, "s") == [FAULT]


def test_a_conflict_ends_with_its_cause() -> None:
    desk = Desk("s")
    desk.read(good("web", "m.yaml", 1))
    desk.read(good("web", "m.yaml", 1), good("web", "z.yaml", 9))
    desk.read(good("web", "z.yaml", 9))
    assert desk.counts() == {"web": 9}
    assert desk.book.presets["web"].findings == ()


def test_a_renamed_file_that_broke_on_the_way_keeps_its_preset() -> None:
    desk = Desk("s")
    desk.read(good("web", "a.yaml"))
    desk.read(broken("web", "b.yaml"))
    assert desk.counts() == {"web": 1}
    assert desk.book.presets["web"].file == "b.yaml"


def test_a_renamed_preset_is_a_removal_and_a_new_one() -> None:
    desk = Desk("s")
    desk.read(good("web", "a.yaml"))
    changes = desk.read(good("app", "a.yaml"))
    assert {type(change) for change in changes} == {Preset, Removed}
    assert desk.counts() == {"app": 1}


def test_one_name_in_two_sources_stays_with_whom_it_was() -> None:
    desk = Desk("s", "t")
    desk.read(good("web", "a.yaml", 1))
    desk.read(good("web", "a.yaml", 2), source="t")
    assert desk.counts() == {"web": 1}
    assert len(book.findings_of(desk.book, "s")) == len(book.findings_of(desk.book, "t")) == 1


def remembered() -> tuple[Preset, ...]:
    desk = Desk("s")
    desk.read(good("web", "a.yaml"), good("db", "b.yaml"))
    return tuple(desk.book.presets.values())


def test_after_a_restart_the_last_good_presets_stand_until_their_source_is_read() -> None:
    desk = Desk("s", "t", last_good=remembered())
    assert desk.counts() == {"web": 1, "db": 1}
    assert not desk.book.is_synced
    desk.read(good("other", "x.yaml"), source="t")
    assert desk.counts() == {"web": 1, "db": 1, "other": 1}
    changes = desk.read(broken("web", "a.yaml"))
    assert desk.counts() == {"web": 1, "other": 1}
    assert {change.name for change in changes} == {"web", "db"}
    assert desk.book.is_synced


def test_after_a_restart_the_same_files_change_nothing() -> None:
    desk = Desk("s", last_good=remembered())
    assert desk.read(good("web", "a.yaml"), good("db", "b.yaml")) == []


def test_presets_of_a_renamed_source_never_flicker() -> None:
    desk = Desk("s", "t")
    desk.read(good("web", "a.yaml"), good("db", "b.yaml"))
    desk.read(source="t")
    assert desk.restock("new", "t") == []
    assert desk.read(source="t") == []
    changes = desk.read(good("web", "a.yaml"), source="new")
    assert desk.counts() == {"web": 1}
    assert Removed(name="db", source="s", revision="") in changes
    assert desk.book.presets["web"].source == "new"


def test_without_any_source_there_are_no_presets() -> None:
    desk = Desk("s", last_good=remembered())
    assert {change.name for change in desk.restock()} == {"web", "db"}
    assert desk.counts() == {}
