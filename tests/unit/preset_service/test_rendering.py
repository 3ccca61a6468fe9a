"""User data that are templates, friendly and hostile ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from preset_service import rendering
from preset_service.domain import Attachment, Network, PresetSpec
from preset_service.port import Problem
from preset_service.rendering import Job, Outcome, Renderer

SPEC = PresetSpec(
    count=3,
    flavor="m1",
    image="jammy",
    key_name="ops",
    meta_tags={"role": "web"},
    network=Network(security_groups=("a", "b"), attachments=(Attachment(subnet="s"),)),
    provider="os",
    iaas_options={"region": "r"},
)
VARIABLES = rendering.variables("web-1", SPEC)


async def rendered(*texts: str, variables: Mapping[str, Any] = VARIABLES) -> list[Outcome]:
    return await Renderer().render([Job(text=text, variables=variables) for text in texts])


async def problem(text: str) -> str:
    [outcome] = await rendered(text)
    assert isinstance(outcome, Problem), outcome
    return outcome.message


async def test_a_template_sees_what_its_preset_declares() -> None:
    text = (
        "{{ name }} {{ count }} {{ flavor }} {{ image }} {{ key_name }} {{ meta_tags.role }} "
        "{{ network.security_groups|join(',') }} {{ network.subnets[0] }}\n"
    )
    assert await rendered(text) == ["web-1 3 m1 jammy ops web a,b s\n"]


async def test_a_text_without_marks_is_left_as_it_is() -> None:
    assert await rendered("#!/bin/sh\necho }} %}\n") == ["#!/bin/sh\necho }} %}\n"]


async def test_control_structures_and_raw_blocks_work() -> None:
    text = "{% for i in range(count) %}{{ i }}{% endfor %}{% raw %}{{ ds }}{% endraw %}"
    assert await rendered(text) == ["012{{ ds }}"]


@pytest.mark.parametrize(
    "text",
    [
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ name.__class__ }}",
        "{{ (name|attr('__class__')) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ iaas.password }}",
        "{{ provider }}",
        "{{ iaas_options }}",
        "{{ config }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{ meta_tags.update({'a': 'b'}) }}",
        "{{ undefined }}",
        "{{ 1/0 }}",
        "{% if %}",
        "{{ 'x'.format.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
    ],
)
async def test_a_template_reaches_nothing_but_its_variables(text: str) -> None:
    assert await problem(text)


@pytest.mark.parametrize(
    "text",
    ["{{ name.upper }}", "{{ [name.upper] }}", "{{ meta_tags|map('upper') }}", "{{ lipsum() }}",
     "{{ [1, 2]|random }}", "{{ namespace() }}", "{{ cycler('a') }}", "{{ {'a': name.upper} }}"],
)  # fmt: skip
async def test_what_would_read_otherwise_each_time_is_refused(text: str) -> None:
    # VMs would be replaced for it at every restart of this service.
    assert await problem(text)


async def test_a_fault_tells_its_line_and_the_way_out() -> None:
    message = await problem("first\n{{ ds.meta }}\n")
    assert "line 2" in message
    assert "{% raw %}" in message


# The real time of a job is over before its processor time where others have most of the processor.
PATIENT = """
import sys
sys.path.append({folder!r})
import render_worker
render_worker.REAL_SECONDS = 60
render_worker.main()
"""


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The renderer with more of the real time, and otherwise as it is."""
    program = tmp_path / "patient.py"
    program.write_text(PATIENT.format(folder=str(rendering._WORKER.parent)))
    monkeypatch.setattr(rendering, "_WORKER", program)
    monkeypatch.setattr(rendering, "_PATIENCE_SECONDS", 90)


async def test_a_template_that_eats_memory_or_time_fails_alone(patient: None) -> None:
    outcomes = await rendered(
        "{{ name }}",
        "{{ 'a'*10**9 }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 'a'*70000 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ count }}",
    )
    assert [outcomes[0], outcomes[-1]] == ["web-1", "3"]
    assert all(isinstance(each, Problem) for each in outcomes[1:-1])
    [_, memory, time, *_] = outcomes
    assert isinstance(memory, Problem)
    assert "memory" in memory.message
    assert isinstance(time, Problem)
    assert "processor time" in time.message


async def test_what_was_rendered_is_not_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer()
    jobs = [Job(text="{{ name }}", variables=VARIABLES)]
    assert await renderer.render(jobs) == ["web-1"]

    async def refuse(*args: object) -> dict[bytes, Outcome]:
        assert not args[0]
        return {}

    monkeypatch.setattr(rendering, "_rendered", refuse)
    assert await renderer.render(jobs) == ["web-1"]


async def test_other_variables_are_rendered_anew() -> None:
    renderer = Renderer()
    first = await renderer.render([Job(text="{{ name }}", variables={"name": "a"})])
    second = await renderer.render([Job(text="{{ name }}", variables={"name": "b"})])
    assert (first, second) == (["a"], ["b"])


async def test_a_renderer_that_dies_costs_only_the_job_in_its_hands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = rendering._ask

    async def kill_at_second(worker: Any, job: Job) -> Outcome:
        if "second" in job.text:
            worker.kill()
        return await ask(worker, job)

    monkeypatch.setattr(rendering, "_ask", kill_at_second)
    [first, second, third] = await rendered("first {{ 1 }}", "second {{ 2 }}", "third {{ 3 }}")
    assert (first, third) == ("first 1", "third 3")
    assert isinstance(second, Problem)
