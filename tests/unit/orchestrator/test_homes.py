from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.homes import Member, home, moved
from orchestrator.model import PresetName

NAMES = [PresetName(f"preset-{number}") for number in range(2000)]
OWNERS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)
SHARES = st.integers(0, 100)


def homes(*members: Member) -> dict[PresetName, str]:
    return {name: home(name, members) for name in NAMES}


def test_without_replicas_nobody_can_tell() -> None:
    assert home(PresetName("web"), []) == ""


def test_presets_are_spread_evenly() -> None:
    counts = Counter(homes(*(Member(f"host-{i}/abc") for i in range(5))).values())
    assert len(counts) == 5
    assert all(330 < count < 470 for count in counts.values())


def test_half_the_share_is_half_the_presets() -> None:
    counts = Counter(homes(Member("a", 50), Member("b", 100)).values())
    assert 590 < counts["a"] < 740


def test_a_replica_that_comes_takes_from_all_and_moves_nothing_else() -> None:
    before = homes(Member("a"), Member("b"), Member("c"))
    after = homes(Member("a"), Member("b"), Member("c"), Member("d"))
    changed = {name for name in NAMES if before[name] != after[name]}
    assert {after[name] for name in changed} == {"d"}
    assert {before[name] for name in changed} == {"a", "b", "c"}


def test_a_smaller_share_only_gives_and_never_takes() -> None:
    before, after = homes(Member("a"), Member("b")), homes(Member("a", 70), Member("b"))
    assert {(before[n], after[n]) for n in NAMES if before[n] != after[n]} == {("a", "b")}


def test_one_that_can_take_nothing_gets_nothing() -> None:
    assert set(homes(Member("a", 0), Member("b", 1)).values()) == {"b"}


def test_when_none_can_take_anything_all_do_what_they_can() -> None:
    assert homes(Member("a", 0), Member("b", 0)) == homes(Member("a"), Member("b"))


def test_only_what_comes_or_goes_is_looked_at() -> None:
    before, after = [Member("a"), Member("b")], [Member("a"), Member("b"), Member("c")]
    was, will = homes(*before), homes(*after)
    gone = [name for name in NAMES if was[name] == "a" and will[name] == "c"]
    assert moved(NAMES, before, after, owner="a") == gone
    assert moved(NAMES, before, before, owner="a") == []
    assert moved(NAMES, [], before, owner="a") == [name for name in NAMES if was[name] == "a"]


@given(OWNERS, st.data())
def test_all_replicas_come_to_the_same_in_whatever_order_they_know_each_other(
    owners: list[str], data: st.DataObject
) -> None:
    members = [Member(owner, data.draw(SHARES)) for owner in owners]
    shuffled = data.draw(st.permutations(members))
    name = PresetName(data.draw(st.text(min_size=1, max_size=8)))
    assert home(name, members) == home(name, shuffled) in owners
