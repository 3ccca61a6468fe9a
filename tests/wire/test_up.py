"""`vmshepherd up` as an operator meets it: a process, its VMs, its ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from vmshepherd_kit.clock import SystemClock

EXAMPLES = Path(__file__).parents[2] / "examples"

SUITE = """\
suite_id: trial
state_dir: state
preset:
  listen: {address: "127.0.0.1:0"}
  sources: [{name: local, driver: directory, options: {path: presets.d}}]
runtime: {listen: {address: "127.0.0.1:0"}}
iaas:
  listen: {address: "127.0.0.1:0"}
  providers: {process: {driver: process, options: {port: 18080}}}
health: {listen: {address: "127.0.0.1:0"}}
orchestrator:
  listen: {address: "127.0.0.1:0"}
  interval: 2s
"""

PRESET = """\
count: 2
healthcheck: {driver: http, port: 18080, path: /}
"""

pytestmark = pytest.mark.e2e


class Suite:
    """A running `vmshepherd up`, and the command that asks it."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.address = ""
        self.lines: list[str] = []

    async def asked(self, *arguments: str) -> Any:
        process = await launched(*arguments, "-o", "json", folder=self.folder, address=self.address)
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    async def vms(self) -> dict[str, str]:
        told = await self.asked("vm", "list")
        return {vm["vmId"]: vm["status"] for vm in told["vms"]}

    async def has(self, condition: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """The VMs, as soon as they are as expected; the test's timeout bounds it."""
        while not condition(vms := await self.vms()):
            await a_moment()
        return vms

    async def said(self, sentence: str) -> None:
        """Wait until it says so."""
        assert self.process.stdout
        while not any(sentence in line for line in self.lines):
            line = await self.process.stdout.readline()
            assert line, f"ended without a word of {sentence!r}: {self.lines}"
            self.lines.append(line.decode().rstrip())

    async def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        assert self.process.stdout
        self.lines += (await self.process.stdout.read()).decode().splitlines()
        return await self.process.wait()


async def launched(*arguments: str, folder: Path, address: str = "") -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "admin",
        *arguments,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "VMSHEPHERD_ADDRESS": address,
            "PYTHONPATH": str(EXAMPLES.parent),
            "XDG_STATE_HOME": str(folder / "home"),
        },
    )


@asynccontextmanager
async def running(folder: Path, *options: str) -> AsyncIterator[Suite]:
    process = await launched("up", *options, folder=folder)
    suite = Suite(process, folder)
    try:
        assert process.stdout
        async for line in process.stdout:
            suite.lines.append(line.decode().rstrip())
            if found := re.search(r"VmShepherd runs: (\S+)", suite.lines[-1]):
                suite.address = found[1]
                break
        else:
            assert process.stderr
            pytest.fail((await process.stderr.read()).decode())
        yield suite
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A suite's folder; whatever VMs a test left running there are ended."""
    (tmp_path / "presets.d").mkdir()
    (tmp_path / "presets.d/web.yaml").write_text(PRESET)
    (tmp_path / "suite.yaml").write_text(SUITE)
    yield tmp_path
    for pid in guests(tmp_path):
        os.kill(pid, signal.SIGKILL)


def guests(folder: Path) -> list[int]:
    """Processes that live in the folder of a VM of this suite."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                cwd = (entry / "cwd").readlink()
            except OSError:
                continue
            if cwd.is_relative_to(folder / "state/vms"):
                found.append(int(entry.name))
    return found


async def a_moment() -> None:
    await SystemClock().sleep(timedelta(milliseconds=100))


def all_run(count: int) -> Callable[[dict[str, str]], bool]:
    return lambda vms: list(vms.values()) == ["VM_STATUS_RUNNING"] * count


async def test_vms_go_on_running_when_the_suite_ends_and_are_managed_again(folder: Path) -> None:
    async with running(folder, "-c", "suite.yaml") as first:
        made = await first.has(all_run(2))
        assert await first.end() == 0
    assert "Its VMs go on running." in first.lines
    assert any("--ephemeral" in line for line in first.lines)
    assert len(guests(folder)) == 2

    async with running(folder, "-c", "suite.yaml", "--ephemeral") as second:
        assert (await second.has(all_run(2))).keys() == made.keys()
        assert await second.end(signal.SIGINT) == 0
    assert "2 VMs removed." in second.lines
    assert guests(folder) == []
    assert list((folder / "state/vms").glob("*/vm.json")) == []


async def test_what_happens_is_told_a_line_each_where_there_is_no_terminal(folder: Path) -> None:
    async with running(folder, "-c", "suite.yaml", "--ephemeral") as suite:
        await suite.said("web: steady, 2 of 2 run")
        await suite.end()
    told = "\n".join(suite.lines)
    assert len(re.findall(r"web: vm created", told)) == 2
    assert "\x1b" not in told


async def test_a_second_suite_is_told_which_port_is_taken_and_what_to_do(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (folder / "suite.yaml").write_text(re.sub(r"(health: .*):0", rf"\1:{port}", SUITE))
        process = await launched("up", "-c", "suite.yaml", folder=folder)
        _, err = await process.communicate()
    assert process.returncode == 1
    sentence = err.decode().splitlines()[-1]
    assert sentence.startswith(f"health: cannot listen on 127.0.0.1:{port}")
    assert "health.listen.address" in sentence
    assert "is another suite running?" in sentence


async def test_a_wrong_file_is_refused_by_line_and_key_before_anything_starts(
    folder: Path,
) -> None:
    (folder / "suite.yaml").write_text(SUITE.replace("interval: 2s", "intervall: 2s"))
    process = await launched("up", "-c", "suite.yaml", folder=folder)
    out, err = await process.communicate()
    assert process.returncode == 2
    assert out == b""
    expected = "suite.yaml:13: orchestrator.intervall: unknown key; did you mean 'interval'?"
    assert expected in err.decode().splitlines()


async def test_wrong_options_of_a_driver_are_refused_by_line_and_key(folder: Path) -> None:
    (folder / "suite.yaml").write_text(SUITE.replace("options: {port", "options: {prot"))
    process = await launched("up", "-c", "suite.yaml", folder=folder)
    _, err = await process.communicate()
    assert process.returncode == 2
    assert "suite.yaml:9: iaas.providers.process.options.prot: unknown key" in err.decode()


async def test_a_changed_file_takes_force_whole_or_not_at_all_and_info_says_which(
    folder: Path,
) -> None:
    async def config_error(*, is_there: bool) -> str:
        while bool(error := (await suite.asked("info"))["configError"]) is not is_there:
            await a_moment()
        return str(error)

    path = folder / "suite.yaml"
    async with running(folder, "-c", "suite.yaml", "--ephemeral") as suite:
        loaded = (await suite.asked("info"))["configTime"]
        path.write_text(SUITE.replace("port: 18080", "port: 18081").replace("2s", "1s"))
        assert "iaas: a change of this takes force with a restart only" in await config_error(
            is_there=True
        )
        path.write_text(SUITE.replace("interval", "intervall"))
        while "did you mean 'interval'" not in await config_error(is_there=True):
            await a_moment()
        assert (await suite.asked("info"))["configTime"] == loaded
        path.write_text(SUITE.replace("interval: 2s", "interval: 1s"))
        await config_error(is_there=False)
        assert (await suite.asked("info"))["configTime"] > loaded
        await suite.end()


async def test_the_signal_for_a_reload_does_not_end_the_suite(folder: Path) -> None:
    async with running(folder, "-c", "suite.yaml", "--ephemeral") as suite:
        before = (await suite.asked("info"))["configTime"]
        while (await suite.asked("info"))["configTime"] == before:
            suite.process.send_signal(signal.SIGHUP)
        await suite.end()


async def test_the_predecessors_own_example_starts_as_it_is(tmp_path: Path) -> None:
    example = EXAMPLES / "predecessor"
    text = (example / "settings.example.yaml").read_text()
    listen = 'listen: {address: "127.0.0.1:0"}'
    text = text.replace("runtime:\n", f"runtime:\n  {listen}\n")
    text += "".join(f"{s}: {{{listen}}}\n" for s in ("preset", "iaas", "health", "orchestrator"))
    (tmp_path / "settings.yaml").write_text(text)
    (tmp_path / "config").symlink_to(example / "config")
    process = await launched("-c", "settings.yaml", folder=tmp_path)
    suite = Suite(process, tmp_path)
    assert process.stdout
    line = (await process.stdout.readline()).decode()
    suite.address = line.split()[2]
    while not await suite.vms():
        await a_moment()
    [preset] = (await suite.asked("preset", "list"))["presets"]
    assert (preset["name"], preset["count"], preset["provider"]) == ("C_DEV-app-dev", 1, "dummy")
    assert await suite.end() == 0


async def test_a_service_runs_alone_by_its_section(folder: Path) -> None:
    process = await launched("serve", "health", "-c", "suite.yaml", folder=folder)
    assert process.stderr
    async for line in process.stderr:
        if b"service runs" in line:
            break
    process.terminate()
    await process.communicate()
    assert process.returncode == 0


async def test_a_second_interrupt_ends_the_suite_at_once(folder: Path) -> None:
    async with running(folder, "-c", "suite.yaml") as suite:
        await suite.has(all_run(2))
        suite.process.send_signal(signal.SIGINT)
        await suite.said("once more ends it at once")
        suite.process.send_signal(signal.SIGINT)
        assert await suite.process.wait() in {0, 130}


async def test_vms_that_end_with_the_suite_are_not_said_to_go_on(folder: Path) -> None:
    text = (folder / "suite.yaml").read_text()
    (folder / "suite.yaml").write_text(
        re.sub(r"  providers: .*", "  providers: {play: {driver: simulated}}", text)
    )
    async with running(folder, "-c", "suite.yaml") as suite:
        assert await suite.end() == 0
    assert "VMs of play were simulated in this process, and are gone." in suite.lines
    assert not any("go on running" in line for line in suite.lines)
