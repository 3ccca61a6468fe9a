"""A program of its own that renders templates which nobody trusts; `rendering` starts it.

It reads jobs from standard input and answers on standard output, each a frame of four bytes of
length and JSON.  A forked child renders them under limits on processor time and memory; a job that
is the child's end is answered as such, and the others go to the next child.  It imports Jinja2 and
nothing of ours: there are no secrets here but the jobs.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import struct
import sys
import traceback
from typing import Any, BinaryIO, Final, NoReturn

import jinja2
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS: Final = 2
MEMORY_BYTES: Final = 256 * 1024 * 1024
# Also counts the time in which the processor serves others.
REAL_SECONDS: Final = 8
MAX_OUTPUT_BYTES: Final = 64 * 1024

_LONGEST_MESSAGE: Final = 300
_TEMPLATE: Final = "<user data>"
# What code in a template can raise, beside what Jinja2 has names for.
_FAULTS: Final = (
    jinja2.TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError,
    NotImplementedError, RecursionError, SyntaxError, TypeError, ValueError,
)  # fmt: skip

Job = dict[str, Any]
Answer = dict[str, Any]


class _TooLong(Exception):
    pass


def environment() -> jinja2.Environment:
    """A sandbox without loader; what would print something else each time is taken away."""
    sandbox = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        finalize=_plain,
        keep_trailing_newline=True,
        autoescape=False,
    )
    for name in ("cycler", "joiner", "lipsum"):
        del sandbox.globals[name]
    for name in ("pprint", "random"):
        del sandbox.filters[name]
    return sandbox


def _plain(value: object) -> object:
    """Addresses of functions and the like differ in every process: VMs would be rolled for them."""
    if isinstance(value, dict):
        for each in (*value.keys(), *value.values()):
            _plain(each)
    elif isinstance(value, list | tuple):
        for each in value:
            _plain(each)
    elif not isinstance(value, str | int | float | bool | Undefined | None):
        raise TypeError(
            f"a {type(value).__name__} cannot be printed; add a filter, like |list or |join"
        )
    return value


def _render(sandbox: jinja2.Environment, job: Job) -> Answer:
    try:
        template = sandbox.from_string(job["text"])
        template.filename = _TEMPLATE
        text = _joined(template, job["variables"])
    except _TooLong:
        return {"error": f"renders to more than {MAX_OUTPUT_BYTES} bytes"}
    except MemoryError:
        return {"error": f"needs more than {MEMORY_BYTES // 1024 // 1024} MiB of memory"}
    except _FAULTS as e:
        return {"error": _message(e)}
    return {"text": text}


def _joined(template: jinja2.Template, variables: dict[str, Any]) -> str:
    pieces, left = [], MAX_OUTPUT_BYTES
    for piece in template.generate(variables):
        pieces.append(piece)
        left -= len(piece.encode())
        if left < 0:
            raise _TooLong
    return "".join(pieces)


def _message(error: BaseException) -> str:
    line = getattr(error, "lineno", None) or _line(error)
    where = f"line {line} of the template: " if line else ""
    what = " ".join(str(error).split()) or type(error).__name__
    hint = ""
    if isinstance(error, jinja2.UndefinedError):
        hint = "; only the preset's own keys can be used, and {% raw %} keeps braces as they are"
    return where + what[:_LONGEST_MESSAGE] + hint


def _line(error: BaseException) -> int | None:
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename == _TEMPLATE), None)


class Child:
    """A fork that renders one job after the other until one of them is its end."""

    def __init__(self, sandbox: jinja2.Environment) -> None:
        jobs, self._jobs = _pipe()
        self._answers, answers = _pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._jobs.close()
            self._answers.close()
            _be_child(sandbox, jobs, answers)
        jobs.close()
        answers.close()

    def answer(self, job: Job) -> Answer | None:
        """The answer; None when the job was the child's end."""
        try:
            write_frame(self._jobs, job)
        except BrokenPipeError:
            return None
        return read_frame(self._answers)

    def end(self) -> int:
        """Its exit code, negative for a signal."""
        with contextlib.suppress(BrokenPipeError):
            self._jobs.close()
        self._answers.close()
        _, status = os.waitpid(self._pid, 0)
        return os.waitstatus_to_exitcode(status)


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb"), os.fdopen(writer, "wb")


def _be_child(sandbox: jinja2.Environment, jobs: BinaryIO, answers: BinaryIO) -> NoReturn:
    code = 1
    try:
        for limit, value in (
            (resource.RLIMIT_AS, MEMORY_BYTES),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(limit, (value, value))
        while (job := read_frame(jobs)) is not None:
            _limit_time()
            write_frame(answers, _render(sandbox, job))
        code = 0
    finally:
        # Nothing of the parent's may be flushed or cleaned up a second time.
        os._exit(code)


def _limit_time() -> None:
    """From now on, for the next job: the kernel counts whole seconds over the life of a process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_REAL, REAL_SECONDS)


def _death(code: int) -> str:
    if -code in {signal.SIGXCPU, signal.SIGKILL}:
        return f"needs more than {CPU_SECONDS} s of processor time"
    if -code == signal.SIGALRM:
        return f"was not rendered within {REAL_SECONDS} s"
    return f"could not be rendered (the renderer ended with {code})"


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next job or answer, None at the end."""
    head = stream.read(4)
    if len(head) < 4:  # noqa: PLR2004
        return None
    body = stream.read(struct.unpack(">I", head)[0])
    frame: dict[str, Any] = json.loads(body)
    return frame


def write_frame(stream: BinaryIO, frame: dict[str, Any]) -> None:
    """Send a job or an answer."""
    body = json.dumps(frame).encode()
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def main() -> None:
    """Answer jobs until standard input ends."""
    sandbox = environment()
    # Whatever Jinja2 loads late is loaded before the first fork.
    sandbox.from_string("{{ x|tojson }}{% for i in x %}{{ i }}{% endfor %}").render(x=["a"])
    child = Child(sandbox)
    while (job := read_frame(sys.stdin.buffer)) is not None:
        answer = child.answer(job)
        if answer is None:
            answer = {"error": _death(child.end())}
            child = Child(sandbox)
        write_frame(sys.stdout.buffer, answer)
    child.end()


if __name__ == "__main__":
    main()
