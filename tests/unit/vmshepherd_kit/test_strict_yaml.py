"""YAML is read as it was written, or refused with its line."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmshepherd_kit import strict_yaml
from vmshepherd_kit.strict_yaml import YamlError


def refused(text: str | bytes, **limits: int) -> YamlError:
    with pytest.raises(YamlError) as caught:
        strict_yaml.read(text, **limits)
    return caught.value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("12:30:45", "12:30:45"), ("y", "y"),
        ("2030-01-01", "2030-01-01"), ("1_000", "1_000"), ("0b11", "0b11"), ("=", "="),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("0", 0), ("-17", -17), ("+3", 3), ("0o17", 15), ("0x1F", 31), ("1.5", 1.5), (".5", 0.5),
        ("1e3", 1000.0), ("-1.", -1.0), ("'5'", "5"), ('"no"', "no"), ("'null'", "null"),
        ("1.2.3", "1.2.3"), ("a#b", "a#b"), ("5 apples", "5 apples"), ("''", ""),
    ],
)  # fmt: skip
def test_a_scalar_means_what_yaml_1_2_says(written: str, value: Any) -> None:
    got = strict_yaml.read(f"key: {written}\n").value["key"]
    assert got == value
    assert type(got) is type(value)


def test_keys_are_texts_as_they_were_written() -> None:
    got = strict_yaml.read("on: 1\n80: 2\nnull: 3\n'<<': 4\n").value
    assert got == {"on": 1, "80": 2, "null": 3, "<<": 4}


def test_lists_mappings_and_blocks_are_plain_values() -> None:
    text = "a:\n  - {b: 1, c: [x, y]}\n  - |\n    line\n    no: more\n"
    assert strict_yaml.read(text).value == {"a": [{"b": 1, "c": ["x", "y"]}, "line\nno: more\n"]}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_text_is_nothing(text: str) -> None:
    assert strict_yaml.read(text).value is None


def test_a_byte_order_mark_and_bytes_are_read() -> None:
    assert strict_yaml.read(b"\xef\xbb\xbfa: \xc4\x85\n").value == {"a": "ą"}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "second time, first on line 1"),
        ("a: {b: 1,\n b: 2}", 2, "second time"),
        ("a: 1\n'a': 2\n", 2, "second time"),
        ("a: 0777\n", 1, "octal"),
        ("a:\n- 007\n", 2, "octal"),
        ("a: &x 1\nb: *x\n", 1, "anchors"),
        ("b: *x\n", 1, "aliases"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "tags"),
        ("a: !secret x\n", 1, "tags"),
        ("!x a: 1\n", 1, "tags"),
        ("x: 1\n<<: {a: 1}\n", 2, "merge keys"),
        ("? [a, b]\n: 1\n", 1, "key must be"),
        ("a: 1\n---\nb: 2\n", 2, "more than one document"),
        ("a: 1\nb: \0\n", 2, "NUL"),
        ("a: 1\nb: \x07\n", 2, "may not stand"),
        ("a: .inf\n", 1, "not a number"),
        ("a: .NaN\n", 1, "not a number"),
        ("a: 1e999\n", 1, "too large"),
        ("a: " + "9" * 5000, 1, "digits"),
        ("a: [1, 2\nb: 3\n", 2, ""),
        ("a: b: c\n", 1, ""),
        ("a:\n\t- 1\n", 2, ""),
        (b"a: \xff\n", 1, "UTF-8"),
    ],
)
def test_what_is_ambiguous_or_broken_is_refused_with_its_line(
    text: str | bytes, line: int, problem: str
) -> None:
    error = refused(text)
    assert (error.line, problem in str(error)) == (line, True), str(error)


def test_a_fault_names_its_key() -> None:
    assert refused("iaas:\n  zones:\n  - {name: a, name: b}\n").key == "iaas.zones.0.name"
    assert refused("network:\n  mask: 0755\n").key == "network.mask"


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "[{a: ", "? "])
def test_a_tower_of_brackets_is_refused_and_not_climbed(opening: str) -> None:
    assert "nested deeper" in str(refused(opening * 3000)) or opening == "? "
    refused(opening * 40_000)


def test_depth_and_size_have_limits_that_can_be_set() -> None:
    strict_yaml.read("a: {b: {c: 1}}", max_depth=3)
    refused("a: {b: {c: {d: 1}}}", max_depth=3)
    strict_yaml.read("a: 1", max_bytes=4)
    refused("a: ą", max_bytes=4)


def test_more_values_than_anybody_writes_are_refused_at_the_line_that_is_too_much() -> None:
    with pytest.raises(YamlError, match="more than 10 values") as refused:
        strict_yaml.read("- a\n" * 100, max_values=10)
    assert refused.value.line == 10  # the list itself is one of them


def test_every_value_knows_its_line_and_a_missing_one_its_parents() -> None:
    document = strict_yaml.read("name: web\n\nnetwork:\n  zones:\n  - a\n  - b\n")
    assert document.line_of(("name",)) == 1
    assert document.line_of(("network", "zones")) == 4
    assert document.line_of(("network", "zones", 1)) == 6
    assert document.line_of(("network", "subnet")) == 3
    assert document.line_of(("nothing", "at", "all")) == 1
    assert strict_yaml.read("").line_of(("a",)) == 1


# Line separators fold and control characters are refused: nobody writes them by hand.
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_is_read_as_what_it_is(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert strict_yaml.read(text).value == value


@given(st.text(alphabet=st.sampled_from(list("[]{}:,-?&*!|>'\"#%@` \n\tab01")), max_size=60))
def test_any_text_at_all_is_read_or_refused_and_never_breaks(text: str) -> None:
    with suppress(YamlError):
        strict_yaml.read(text)
