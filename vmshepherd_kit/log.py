"""The log: an event of constant words and key=value fields, one line each, on standard error.

`setup` is called once by whoever starts the process; everybody else calls `get`.  The records of
the standard library's loggers (grpc, asyncio) leave in the same form.  Fields that are named like
a secret never leave as they are.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Final, Literal, cast

import structlog

from vmshepherd_kit.clock import SystemClock

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

    from vmshepherd_kit.clock import Clock

Format = Literal["auto", "console", "json", "logfmt"]

# "token" alone or as auth_token is a secret; fencing_token, page_token and resume_token are not.
_SECRET: Final = re.compile(
    r"passw|secret|credential|authorization|api_?key|private_?key|^token$|auth_?token|access_?token",
    re.IGNORECASE,
)


def get(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `logger=name`."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def setup(level: str = "info", fmt: Format = "auto", *, clock: Clock | None = None) -> None:
    """Send all records of this process to standard error; `auto` is console on a terminal and
    JSON elsewhere.
    """
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _stamped(clock or SystemClock()),
        hide_secrets,
    ]
    # The clock's stamp, the level and the exception are the same for structlog's and for the
    # library's records.
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(fmt)],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # It tells of every change beneath what it watches: a log file there would feed itself.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    # It tells of the loop that it found at nearly every call.
    logging.getLogger("grpc").setLevel(max(logging.INFO, logging.getLevelName(level.upper())))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the value of every field that is named like a secret."""
    return {key: "(hidden)" if _SECRET.search(key) else value for key, value in event.items()}


def is_secret(key: str) -> bool:
    """Whether a field or setting of that name may hold a secret, so that its value is never
    shown.
    """
    return _SECRET.search(key) is not None


def _stamped(clock: Clock) -> Processor:
    def stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["time"] = clock.wall().isoformat(timespec="milliseconds")
        return event

    return stamp


def _renderers(fmt: Format) -> list[Processor]:
    if fmt == "console" or (fmt == "auto" and sys.stderr.isatty()):
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="time")]
    if fmt == "logfmt":
        order = ["time", "level", "logger", "event"]
        return [
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=order, bool_as_flag=False),
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
