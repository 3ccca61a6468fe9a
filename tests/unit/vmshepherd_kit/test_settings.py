"""Settings are parsed whole, or refused with every fault named."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, Field

from vmshepherd_kit import settings
from vmshepherd_kit.settings import Duration, Settings


class Lock(Settings):
    ttl: Duration = timedelta(seconds=30)
    holders: list[str] = []


class Cloud(Settings):
    region: str
    password: int = 0
    flavor: str = Field(default="s", validation_alias=AliasChoices("flavor", "flavour"))


class Config(Settings):
    driver: str = "memory"
    poll_seconds: int = Field(default=5, ge=1)
    lock: Lock = Lock()
    clouds: dict[str, Cloud] = {}
    fallback: Cloud | Lock | None = None


def findings(raw: Any, where: str = "runtime") -> list[tuple[str, str | None]]:
    with pytest.raises(settings.Invalid) as caught:
        settings.parse(raw, Config, where=where)
    return [(finding.path, finding.nearest) for finding in caught.value.findings]


def test_what_is_not_said_has_its_default() -> None:
    assert settings.parse({}, Config) == Config()
    assert settings.parse(None, Config) == Config()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().driver = "sqlite"


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({"drivr": "x"}, [("runtime.drivr", "driver")]),
        ({"lock": {"tll": 3}}, [("runtime.lock.tll", "ttl")]),
        ({"clouds": {"a": {"region": "r", "flavr": 1}}}, [("runtime.clouds.a.flavr", "flavor")]),
        ({"clouds": {"a": {}}}, [("runtime.clouds.a.region", None)]),
        ({"zzz": 1}, [("runtime.zzz", None)]),
        ({"lock": {"holders": ["a", 5]}}, [("runtime.lock.holders.1", None)]),
        ({"poll_seconds": 0, "lock": 7}, [("runtime.poll_seconds", None), ("runtime.lock", None)]),
        ([1], [("runtime", None)]),
    ],
)
def test_every_fault_is_named_by_its_path_and_the_nearest_key(
    raw: Any, found: list[tuple[str, str | None]]
) -> None:
    assert findings(raw) == found


def test_a_fault_within_a_choice_of_models_has_the_path_that_was_written() -> None:
    paths = {path for path, _ in findings({"fallback": {"regoin": "x"}})}
    assert ("runtime.fallback.regoin") in paths
    assert all(path.startswith("runtime.fallback.") for path in paths)
    assert ("runtime.fallback.regoin", "region") in findings({"fallback": {"regoin": "x"}})


def test_the_sentence_names_path_fault_and_remedy() -> None:
    with pytest.raises(settings.Invalid, match=r"runtime\.pol_seconds: unknown key; did you mean"):
        settings.parse({"pol_seconds": 3}, Config, where="runtime")


def test_an_alias_is_a_known_key() -> None:
    assert settings.parse({"region": "r", "flavour": "xl"}, Cloud).flavor == "xl"


@pytest.mark.parametrize(
    "raw",
    [
        {"clouds": {"a": {"region": "r", "password": "hunter2"}}},
        {"driver": {"password": "hunter2"}},
        {"lock": {"ttl": "hunter2"}},
        {"poll_seconds": "hunter2"},
        {"lock": "hunter2"},
        {"fallback": ["hunter2"]},
    ],
)
def test_a_value_is_never_repeated_for_it_may_be_a_secret(raw: Any) -> None:
    with pytest.raises(settings.Invalid) as caught:
        settings.parse(raw, Config)
    assert "hunter2" not in f"{caught.value} {caught.value.violations} {caught.value.findings}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (5, 5), (0, 0), (0.25, 0.25), ("5", 5), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200),
        ("1d", 86400), (" 30s ", 30), ("1.5h", 5400), (timedelta(seconds=3), 3),
    ],
)  # fmt: skip
def test_a_duration_is_seconds_or_a_text_with_units(text: Any, seconds: float) -> None:
    assert settings.parse({"ttl": text}, Lock).ttl == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "5 s", "1x", "-5s", -1, True, float("nan"), float("inf"), [], "1e9", 10**12]
)
def test_what_is_no_duration_is_refused(text: Any) -> None:
    with pytest.raises(settings.Invalid) as caught:
        settings.parse({"ttl": text}, Lock)
    assert [finding.path for finding in caught.value.findings] == ["ttl"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["driver", "lock", "ttl", "clouds", "fallback", "region", "zz"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_anything_at_all_is_parsed_or_refused_and_never_breaks(raw: Any) -> None:
    with suppress(settings.Invalid):
        assert isinstance(settings.parse(raw, Config), Config)
