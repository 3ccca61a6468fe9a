"""User data rendered as Jinja2 templates, at a distance.

`workshop` hands over batches.  What holds no template is not rendered at all, what was rendered for
the last batch is not rendered anew, and the rest goes to a process of its own (`render_worker`),
which is started for a batch and ends with it.  A template that fails is a Problem of its preset
alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from preset_service.domain import MAX_USER_DATA_BYTES, Network, PresetSpec
from preset_service.port import Problem

_WORKER: Final = Path(__file__).with_name("render_worker.py")
_MARKS: Final = ("{{", "{%", "{#")
# The worker limits its children itself; this is for a worker that does not answer at all.
_PATIENCE_SECONDS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A template and the variables that it may use."""

    text: str = field(repr=False)
    variables: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> bytes:
        """The same for jobs with the same outcome."""
        return hashlib.sha256(self._payload()).digest()

    @property
    def frame(self) -> bytes:
        """The job as the worker reads it."""
        body = self._payload()
        return struct.pack(">I", len(body)) + body

    def _payload(self) -> bytes:
        return json.dumps({"text": self.text, "variables": self.variables}).encode()


Outcome = str | Problem


def variables(name: str, spec: PresetSpec) -> dict[str, Any]:
    """All that a template may use: the preset's own declaration, nothing of the suite's."""
    return {
        "name": name,
        "count": spec.count,
        "flavor": spec.flavor,
        "image": spec.image,
        "key_name": spec.key_name,
        "network": _network(spec.network),
        "meta_tags": dict(spec.meta_tags),
    }


class Renderer:
    """Renders batches, and remembers the last one."""

    def __init__(self) -> None:
        self._last: dict[bytes, Outcome] = {}

    async def render(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The rendered texts, in order; a Problem where a template failed."""
        outcomes: list[Outcome] = [job.text for job in jobs]
        keys = {i: job.key for i, job in enumerate(jobs) if _is_template(job.text)}
        if not keys:
            self._last = {}
            return outcomes
        wanted = {key: jobs[i] for i, key in keys.items() if key not in self._last}
        rendered = {**self._last, **await _rendered(wanted)}
        # Only what is still in use is remembered.
        self._last = {key: rendered[key] for key in keys.values()}
        for i, key in keys.items():
            outcomes[i] = rendered[key]
        return outcomes


async def _rendered(jobs: Mapping[bytes, Job]) -> dict[bytes, Outcome]:
    done: dict[bytes, Outcome] = {}
    while len(done) < len(jobs):
        left = [key for key in jobs if key not in done]
        async with _worker() as worker:
            for key in left:
                try:
                    async with asyncio.timeout(_PATIENCE_SECONDS):
                        done[key] = await _ask(worker, jobs[key])
                except (TimeoutError, OSError, asyncio.IncompleteReadError):
                    # The others are tried again with a new worker.
                    done[key] = Problem("could not be rendered: the renderer gave no answer")
                    break
    return done


async def _ask(worker: asyncio.subprocess.Process, job: Job) -> Outcome:
    if worker.stdin is None or worker.stdout is None:
        raise OSError("the worker has no pipes")
    worker.stdin.write(job.frame)
    await worker.stdin.drain()
    (length,) = struct.unpack(">I", await worker.stdout.readexactly(4))
    answer = json.loads(await worker.stdout.readexactly(length))
    if "text" not in answer:
        return Problem(str(answer.get("error")))
    text = str(answer["text"])
    if len(text.encode()) > MAX_USER_DATA_BYTES:
        return Problem(f"renders to more than {MAX_USER_DATA_BYTES} bytes")
    return text


@asynccontextmanager
async def _worker() -> AsyncIterator[asyncio.subprocess.Process]:
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_WORKER),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
        # Signals of the terminal are for the service alone; and its children end with it.
        start_new_session=True,
    )
    try:
        yield worker
    finally:
        if worker.stdin is not None:
            worker.stdin.close()
        if worker.returncode is None:
            worker.kill()
        await worker.wait()


def _is_template(text: str) -> bool:
    return any(mark in text for mark in _MARKS)


def _network(network: Network) -> dict[str, Any]:
    return {
        "security_groups": list(network.security_groups),
        "availability_zone": network.availability_zone,
        "networks": [each.network for each in network.attachments if each.network],
        "subnets": [each.subnet for each in network.attachments if each.subnet],
    }
