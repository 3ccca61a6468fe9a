from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from health_service.drivers.http_options import HttpOptions
from vmshepherd_kit import settings


def parsed(**raw: Any) -> HttpOptions:
    return settings.parse(raw, HttpOptions)


def refusal(**raw: Any) -> settings.Finding:
    with pytest.raises(settings.Invalid) as refused:
        settings.parse(raw, HttpOptions)
    (finding, *_) = refused.value.findings
    return finding


def test_the_predecessors_options_mean_what_they_meant() -> None:
    options = parsed(
        method="get", path="/health", port=8080, check_status=204, conn_timeout=2, read_timeout=3.5
    )
    assert (options.method, options.path, options.port) == ("GET", "/health", 8080)
    assert options.is_expected(204)
    assert not options.is_expected(200)
    assert options.conn_timeout == timedelta(seconds=2)
    assert options.read_timeout == timedelta(seconds=3.5)


def test_without_options_a_plain_get_must_answer_200() -> None:
    options = parsed()
    assert (options.method, options.path, options.is_tls) == ("GET", "/", False)
    assert [status for status in range(200, 600) if options.is_expected(status)] == [200]


@pytest.mark.parametrize(
    ("value", "good", "bad"),
    [
        (200, [200], [201]),
        ("200-204", [200, 204], [205, 199]),
        ([200, "300-399"], [200, 302], [204, 400]),
        ("200, 204", [200, 204], [201]),
    ],
)
def test_statuses_are_numbers_lists_and_ranges(value: Any, good: list[int], bad: list[int]) -> None:
    options = parsed(expected_status=value)
    assert all(options.is_expected(status) for status in good)
    assert not any(options.is_expected(status) for status in bad)


@pytest.mark.parametrize("value", [0, 99, 100, 600, "ok", "300-200", [], "", [200, "x"], True])
def test_what_is_no_status_is_refused(value: Any) -> None:
    assert refusal(check_status=value).path.startswith("check_status")


def test_the_two_names_of_the_status_are_not_both_taken() -> None:
    assert refusal(check_status=200, expected_status=404).path == "expected_status"


@pytest.mark.parametrize(
    "path",
    [
        "@169.254.169.254/x",
        "health",
        "",
        "http://elsewhere/",
        "/a b",
        "/a\r\nX: y",
        "/\x00",
        "/#f",
        "/ü",
        "/\n",
        "/" + "x" * 2048,
    ],
)
def test_a_path_is_a_path(path: str) -> None:
    assert refusal(path=path).path == "path"


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X\r\n": "a"},
        {"": "a"},
        {"X Y": "a"},
        {"X": "a\n"},
        {"X": "\u20ac"},
        {"Content-Length": "5"},
        {"transfer-encoding": "chunked"},
        {"X": "a", "x": "b"},
        {"X": "y" * 5000},
    ],
)
def test_a_header_cannot_smuggle_anything(headers: dict[str, str]) -> None:
    assert refusal(headers=headers).path.startswith("headers")


def test_the_value_of_a_header_is_not_repeated_in_the_refusal() -> None:
    assert "hunter2" not in str(refusal(headers={"X-Password": "hunter2\r\n"}))


@pytest.mark.parametrize("method", ["CONNECT", "trace", "GET /", "", "G\r\nT"])
def test_a_method_is_a_method(method: str) -> None:
    assert refusal(method=method).path == "method"


@pytest.mark.parametrize("host", ["a b", "a\r\nb", "a/b", "a@b", ""])
def test_a_host_is_a_host(host: str) -> None:
    assert refusal(host=host).path == "host"


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    finding = refusal(chek_status=200)
    assert (finding.path, finding.nearest) == ("chek_status", "check_status")
    assert refusal(tls={"verifyy": True}).nearest == "verify"


def test_patterns_for_the_body_are_not_taken_for_they_may_never_end() -> None:
    assert refusal(body_regex="(a+)+$").path == "body_regex"


@pytest.mark.parametrize("value", [0, -1, 61, "2m", "x"])
def test_a_timeout_is_more_than_nothing_and_at_most_a_minute(value: Any) -> None:
    assert refusal(conn_timeout=value).path == "conn_timeout"
    assert refusal(read_timeout=value).path == "read_timeout"


def test_https_is_a_short_form_of_tls() -> None:
    assert parsed(scheme="https").is_tls
    assert parsed(tls={}).is_tls
    assert parsed(tls={"verify": False}).is_tls
    assert not parsed(tls={"enabled": False}).is_tls
    assert not parsed(scheme="http").is_tls


@pytest.mark.parametrize(
    "raw",
    [
        {"scheme": "http", "tls": {}},
        {"scheme": "https", "tls": {"enabled": False}},
        {"method": "HEAD", "body": "x"},
    ],
)
def test_what_contradicts_itself_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(settings.Invalid):
        settings.parse(raw, HttpOptions)


def test_no_texts_are_expected_of_an_empty_body_option() -> None:
    assert parsed(body="").texts == ()
    assert parsed(body=["a", "ä"]).texts == (b"a", "ä".encode())
