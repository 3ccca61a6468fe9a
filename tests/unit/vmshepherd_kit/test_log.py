"""The log: one line an event, and no secrets."""

import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from vmshepherd_kit import log
from vmshepherd_kit.testing import FakeClock

Read = Callable[[], str]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Read]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


def test_an_event_is_one_line_with_its_fields(written: Read) -> None:
    clock = FakeClock()
    log.setup("info", "json", clock=clock)
    log.get("cycle").info("cycle done", preset="web", vms=3)
    (line,) = written().splitlines()
    assert json.loads(line) == {
        "event": "cycle done",
        "preset": "web",
        "vms": 3,
        "level": "info",
        "logger": "cycle",
        "time": clock.wall().isoformat(timespec="milliseconds"),
    }


def test_records_of_libraries_have_the_same_form(written: Read) -> None:
    log.setup("info", "json")
    logging.getLogger("grpc").warning("lost %s", "a connection")
    line = json.loads(written())
    assert (line["event"], line["logger"]) == ("lost a connection", "grpc")
    assert line["level"] == "warning"


def test_what_is_below_the_level_is_not_written(written: Read) -> None:
    log.setup("warning", "json")
    log.get("cycle").info("cycle done")
    logging.getLogger("grpc").info("hello")
    assert written() == ""


def test_the_details_of_grpc_do_not_drown_our_own(written: Read) -> None:
    log.setup("debug", "json")
    logging.getLogger("grpc._cython.cygrpc").debug("loaded the running loop")
    log.get("cycle").debug("cycle begins")
    (line,) = written().splitlines()
    assert json.loads(line)["event"] == "cycle begins"


@pytest.mark.parametrize("fmt", ["json", "console", "logfmt"])
def test_a_field_named_like_a_secret_is_hidden(fmt: log.Format, written: Read) -> None:
    log.setup("info", fmt)
    log.get("x").info("signed in", password="hunter2", api_key="hunter2", token="hunter2")
    logging.getLogger("lib").info("signed in", extra={"client_secret": "hunter2"})
    lines = written()
    assert "signed in" in lines
    assert "hunter2" not in lines


def test_our_own_tokens_are_no_secrets(written: Read) -> None:
    log.setup("info", "json")
    log.get("x").info("locked", fencing_token=7, resume_token="abc")
    line = json.loads(written())
    assert (line["fencing_token"], line["resume_token"]) == (7, "abc")


@pytest.mark.parametrize("fmt", ["json", "console", "logfmt"])
def test_a_bug_is_logged_with_its_traceback(fmt: log.Format, written: Read) -> None:
    log.setup("info", fmt)
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        log.get("x").exception("broken")
    assert "ZeroDivisionError: integer" in written()


@pytest.mark.parametrize("fmt", ["json", "logfmt"])
def test_a_text_from_outside_cannot_forge_a_line(fmt: log.Format, written: Read) -> None:
    log.setup("info", fmt)
    log.get("x").info("named", name="a\nlevel=error event=forged")
    assert len(written().splitlines()) == 1
