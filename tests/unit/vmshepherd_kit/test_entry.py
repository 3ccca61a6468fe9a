"""How one service becomes a process: its file, its errors, its exit codes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from vmshepherd_kit import entry, settings
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import Refused, ShepherdError
from vmshepherd_kit.settings import Settings


class Config(Settings):
    """A section."""

    port: int = 1


class Ended:
    """A server that ends as soon as it runs."""

    address = "127.0.0.1:1"
    port = 1

    async def drain(self, grace: timedelta) -> None: ...

    async def wait(self) -> None: ...


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What a service sets up for its process is put back for the other tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def service(error: Exception | None = None) -> entry.Running[Config]:
    @asynccontextmanager
    async def running(
        config: Config, *, suite: Suite, clock: Clock, chance: Chance
    ) -> AsyncIterator[Ended]:
        if error:
            raise error
        yield Ended()

    return running


def test_a_service_that_ends_by_itself_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("iaas: {port: 2}")
    assert entry.run("iaas", Config, service(), path=path) == 0


def test_a_wrong_file_is_exit_code_2_and_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("iaas:\n  prot: 2\n")
    assert entry.run("iaas", Config, service(), path=path) == 2
    assert f"{path}:2: iaas.prot: unknown key; did you mean 'port'?" in capsys.readouterr().err


def test_options_that_a_driver_refuses_are_told_with_their_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("iaas:\n  port: 2\n")
    refused = settings.Invalid([settings.Finding("iaas.port", "is taken")])
    assert entry.run("iaas", Config, service(refused), path=path) == 2
    assert f"{path}:2: iaas.port: is taken" in capsys.readouterr().err


def test_another_failure_is_exit_code_1_and_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert entry.run("iaas", Config, service(Refused("the store is in use")), path=None) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "the store is in use"


def test_an_error_that_passed_through_a_task_group_is_told_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = ExceptionGroup("tasks", [ExceptionGroup("inner", [Refused("the store is in use")])])
    assert entry.run("iaas", Config, service(group), path=None) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "the store is in use"


def test_a_bug_is_never_told_as_if_it_were_the_operators_fault() -> None:
    errors: list[Exception] = [Refused("the store is in use"), KeyError("bug")]
    with pytest.raises(ExceptionGroup):
        entry.run("iaas", Config, service(ExceptionGroup("tasks", errors)), path=None)


def test_an_error_alone_keeps_its_own_class() -> None:
    error = Refused("no")
    named: ShepherdError = entry.named(ExceptionGroup("tasks", [error]))
    assert named is error
