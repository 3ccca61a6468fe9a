"""Page sizes and tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmshepherd_kit import pages
from vmshepherd_kit.errors import BadRequest

JSON = st.none() | st.booleans() | st.integers() | st.text()


@pytest.mark.parametrize(("asked", "used"), [(0, 100), (1, 1), (500, 500), (10**9, 1000)])
def test_a_page_size_is_clamped(asked: int, used: int) -> None:
    assert pages.clamp(asked, default=100, maximum=1000) == used


def test_a_negative_page_size_is_refused_by_its_field() -> None:
    with pytest.raises(BadRequest) as caught:
        pages.clamp(-1, default=100, maximum=1000)
    assert [violation.field for violation in caught.value.violations] == ["page_size"]


@given(st.dictionaries(st.text(), JSON))
def test_a_token_leads_back_to_its_position(position: dict[str, object]) -> None:
    assert pages.decode(pages.encode(position)) == position


def test_the_first_page_has_the_empty_token() -> None:
    assert pages.encode({}) == ""
    assert pages.decode("") == {}


@given(st.text(min_size=1))
def test_a_token_that_was_made_up_is_refused(token: str) -> None:
    with pytest.raises(BadRequest) as caught:
        pages.decode(token)
    assert caught.value.reason == "BAD_PAGE_TOKEN"


@given(st.data())
def test_a_token_that_was_cut_is_refused(data: st.DataObject) -> None:
    token = pages.encode({"after": "preset-17", "revision": 5})
    cut = data.draw(st.integers(min_value=1, max_value=len(token) - 1))
    with pytest.raises(BadRequest):
        pages.decode(token[:cut])


def test_a_token_without_end_is_refused() -> None:
    with pytest.raises(BadRequest):
        pages.decode("A" * 10_000_000)
