"""What `vmshepherd up` shows while it runs: a live table on a terminal, a line a change elsewhere.

It asks the orchestrator's API as any client does, so what is seen here is what scripts see.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from admin import client, tables
from admin.printing import drawn
from admin.words import NOTHING, clean
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase, PresetView
from vmshepherd.runtime.v1.event_pb2 import Event
from vmshepherd_kit import dial, stamps
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import ShepherdError

_PERIOD: Final = timedelta(milliseconds=500)
_WEIGHTS: Final = {"info": "dim", "warning": "yellow", "error": "red"}
# Names that no preset can have.
_TROUBLE: Final = ""
_FAULT: Final = "fault:"
_NUMBER: Final = re.compile(r"\d+")
# Lines that the table needs beside its rows.
_FRAME: Final = 9


class Screen(Protocol):
    """Where the state of the suite is shown."""

    def show(self, answer: api.ListPresetsResponse) -> None:
        """The presets as they are now."""
        ...

    def tell(self, event: Event) -> None:
        """What has just happened."""
        ...

    def trouble(self, why: str) -> None:
        """The orchestrator cannot say how they are."""
        ...


async def watch(address: str, screen: Screen, clock: Clock) -> None:
    """Show presets and events until cancelled."""
    async with dial.channel(address) as channel, asyncio.TaskGroup() as group:
        stub = OrchestratorServiceStub(channel)
        group.create_task(_presets(stub, screen, clock))
        group.create_task(_events(stub, screen, clock))


async def _presets(stub: OrchestratorServiceStub, screen: Screen, clock: Clock) -> None:
    while True:
        try:
            screen.show(await client.list_presets(stub))
        except ShepherdError as e:
            screen.trouble(e.message)
        await clock.sleep(_PERIOD)


async def _events(stub: OrchestratorServiceStub, screen: Screen, clock: Clock) -> None:
    """Events from now on, over streams that may end; why they end, `_presets` finds out too."""
    request = api.WatchEventsRequest()
    while True:
        with contextlib.suppress(ShepherdError):
            async with aclosing(dial.listen(stub.WatchEvents, request)) as chunks:
                async for chunk in chunks:
                    for event in chunk.events:
                        screen.tell(event)
                    request.after_sequence = chunk.sequence
        await clock.sleep(_PERIOD)


class Lines:
    """One line for each event, and for each preset that is not what it was."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._last: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def show(self, answer: api.ListPresetsResponse) -> None:
        """Say what differs from the last time."""
        now = {preset.name: f"{preset.name}: {_sentence(preset)}" for preset in answer.presets}
        now |= {f"{_FAULT} {e.message}": e.message for e in answer.source_errors}
        news = {preset.name: _news(preset) for preset in answer.presets}
        for name, sentence in now.items():
            new = news.get(name, sentence)
            if self._last.get(name) != new:
                self._say(sentence)
            now[name] = new
        for name in self._last.keys() - now.keys() - {_TROUBLE}:
            fault = name.removeprefix(f"{_FAULT} ")
            self._say(f"{name}: gone" if fault == name else f"no longer so: {fault}")
        self._last = now

    def tell(self, event: Event) -> None:
        """One line, at the time when it happened."""
        self._console.print(_line(event), soft_wrap=True)

    def trouble(self, why: str) -> None:
        """Say it once, until it changes."""
        if self._last.get(_TROUBLE) != why:
            self._say(f"the orchestrator does not answer: {why}")
        self._last[_TROUBLE] = why

    def _say(self, text: str) -> None:
        self._console.print(Text(f"{_of_day(self._clock.wall())} {clean(text)}"), soft_wrap=True)


class LiveTable:
    """A table that stays at the end of the screen; events and the log scroll above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Take over the end of the screen."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._live.stop()

    def show(self, answer: api.ListPresetsResponse) -> None:
        """Draw anew."""
        shown, hidden = _most_telling(answer.presets, self._console.height - _FRAME)
        parts = [Text(clean(error.message), style="red") for error in answer.source_errors]
        if hidden:
            parts.append(Text(f"and {hidden} more: vmshepherd preset list", style="dim"))
        parts.append(Text("Ctrl-C ends the suite. In another terminal: vmshepherd --help", "dim"))
        self._live.update(Group(drawn(tables.presets(shown)), *parts), refresh=True)

    def tell(self, event: Event) -> None:
        """One line above the table."""
        self._console.print(_line(event))

    def trouble(self, why: str) -> None:
        """Say it in the table's place."""
        said = f"the orchestrator does not answer: {clean(why)}"
        self._live.update(Text(said, style="yellow"), refresh=True)


def screen_for(console: Console, clock: Clock) -> LiveTable | Lines:
    """The table on a terminal, lines elsewhere."""
    return LiveTable(console) if console.is_terminal else Lines(console, clock)


def _sentence(preset: PresetView) -> str:
    why = tables.why(preset)
    return f"{_state(preset)}: {why}" if why else _state(preset)


def _state(preset: PresetView) -> str:
    others = tables.others(preset)
    beside = "" if others == NOTHING else f", {others}"
    is_removed = preset.phase == PresetPhase.PRESET_PHASE_REMOVED
    wanted = "" if is_removed else f" of {preset.count}"
    return f"{tables.phase(preset)}, {tables.running(preset)}{wanted} run{beside}"


def _news(preset: PresetView) -> str:
    """What is worth a line when it differs: reasons count seconds down, and that is not."""
    return _state(preset) + _NUMBER.sub("", tables.why(preset))


def _line(event: Event) -> Text:
    moment = stamps.from_timestamp(event.time)
    time = _of_day(moment) if moment else ""
    _, weight, preset, _, what, message = tables.event_cells(event)
    about = f"{preset}: " if preset else ""
    return Text(clean(f"{time} {about}{what}: {message}"), style=_WEIGHTS.get(weight, ""))


def _of_day(moment: datetime) -> str:
    return moment.astimezone().strftime("%H:%M:%S")


def _most_telling(presets: Sequence[PresetView], room: int) -> tuple[list[PresetView], int]:
    """As many as there is room for, those first that are not as declared; how many are left out."""
    shown = list(presets)
    if len(shown) > max(room, 1):
        shown.sort(key=lambda preset: preset.phase == PresetPhase.PRESET_PHASE_STEADY)
        shown = sorted(shown[: max(room, 1)], key=lambda preset: preset.name)
    return shown, len(presets) - len(shown)
