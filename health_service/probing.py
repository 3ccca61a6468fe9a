"""What a check of one coroutine a target needs: start them in pace, judge how each one ended.

`tcp` and `http` are written upon this. Whatever happens to an attempt becomes a result, and no
attempt knows of another: a bug met at one target leaves the others alone.

Judging follows one rule: what the VM did is UNHEALTHY; what we could not do, and whatever we have
no name for, is UNKNOWN. A host reported unreachable (EHOSTUNREACH) is the VM's: the report comes
from the network about that host, and a VM that is powered off answers no ARP. Our own network cut
says ENETUNREACH, or fails the control.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol

from health_service.domain import Aim, Reason, Result, Verdict
from health_service.port import Report, Tools
from vmshepherd_kit import log

_log = log.get("probing")

# Of the VM, or of the network about it. All other errors of the operating system are ours: file
# descriptors, memory, ports, routes, firewall rules of our own host.
_OF_THE_VM: Final = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.ECONNRESET: Reason.RESET,
    errno.ECONNABORTED: Reason.RESET,
    errno.EPIPE: Reason.RESET,
    errno.ENOTCONN: Reason.RESET,  # between connecting and asking who it is
    errno.EHOSTUNREACH: Reason.UNREACHABLE,
    errno.EHOSTDOWN: Reason.UNREACHABLE,
}
# What a prober that stood still may have brought about itself.
_BY_TIME: Final = frozenset({Reason.TIMEOUT, Reason.RESET})


class Unfit(Exception):
    """The VM answered, and not as it should."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NoAnswer(TimeoutError):
    """Not one packet came back in time."""


class Attempts(Protocol):
    """One way to probe one aim."""

    # What an attempt may take at most.
    patience: timedelta

    def label(self, aim: Aim) -> str:
        """What is attempted, for messages: `GET http://10.0.0.7:80/`."""
        ...

    async def attempt(self, aim: Aim) -> str:
        """What a healthy VM answered; raises Unfit, NoAnswer, TimeoutError, SSLError, OSError."""
        ...


@dataclass(frozen=True, slots=True)
class _Judged:
    verdict: Verdict
    reason: str
    message: str
    silent: bool = False


async def probe_each(attempts: Attempts, tools: Tools, aims: Sequence[Aim], report: Report) -> None:
    """Attempt every aim once, as many side by side as the pace allows. See `port.Probe`."""
    tasks: set[asyncio.Task[Result]] = set()
    try:
        for aim in aims:
            await tools.pace.begin()
            task = asyncio.create_task(_probe(attempts, tools, aim, tools.clock.elapsed()))
            tasks.add(task)
            task.add_done_callback(partial(_ended, tools, aim, report))
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)
    finally:
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _ended(tools: Tools, aim: Aim, report: Report, task: asyncio.Task[Result]) -> None:
    tools.pace.end()
    if task.cancelled():
        return
    if bug := task.exception():
        _log.error("probe failed by a bug", target=aim.target_id, exc_info=bug)
        message = f"the probe failed by a bug: {type(bug).__name__}"
        report(Result(aim.target_id, Verdict.UNKNOWN, Reason.BUG, message))
    else:
        report(task.result())


async def _probe(attempts: Attempts, tools: Tools, aim: Aim, due: timedelta) -> Result:
    began = tools.clock.elapsed()
    if began - due > attempts.patience / 2:
        judged = _Judged(Verdict.UNKNOWN, Reason.LATE, "the prober began too late")
    else:
        judged = await _judged(attempts.attempt(aim))
        if judged.reason in _BY_TIME and tools.lag.stalled_since(began):
            text = f"{judged.message}, while the prober stood still itself"
            judged = _Judged(Verdict.UNKNOWN, Reason.LATE, text)
    latency = tools.clock.elapsed() - began
    message = f"{attempts.label(aim)}: {judged.message}"
    return Result(
        aim.target_id, judged.verdict, judged.reason, message, latency, silent=judged.silent
    )


async def _judged(attempt: Coroutine[Any, Any, str]) -> _Judged:
    try:
        return _Judged(Verdict.HEALTHY, Reason.OK, await attempt)
    except Unfit as e:
        return _Judged(Verdict.UNHEALTHY, e.reason, str(e))
    except ssl.SSLError as e:  # an OSError too, with numbers of its own
        return _Judged(Verdict.UNHEALTHY, Reason.TLS, _of_tls(e))
    except NoAnswer:
        return _Judged(Verdict.UNHEALTHY, Reason.TIMEOUT, "no connection in time", silent=True)
    except TimeoutError:
        return _Judged(Verdict.UNHEALTHY, Reason.TIMEOUT, "connected, but no answer in time")
    except OSError as e:
        return _of_os(e)


def _of_os(error: OSError) -> _Judged:
    text = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    number = error.errno or (errno.ECONNRESET if isinstance(error, ConnectionError) else 0)
    reason = _OF_THE_VM.get(number)
    if reason is None:
        return _Judged(Verdict.UNKNOWN, Reason.LOCAL, text)
    return _Judged(Verdict.UNHEALTHY, reason, text, silent=reason == Reason.UNREACHABLE)


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.strerror}"
    return f"TLS failed: {error.strerror}"
