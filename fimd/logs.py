"""Where the daemon's and its workers' messages go: the journal, a terminal, or JSON lines."""

import logging
import os
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


def setup(level: str, *, json: bool = False) -> None:
    """Send structlog's and the standard library's messages of at least `level` to one place."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
    ]
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=False)
    renderer: structlog.typing.Processor
    chain: list[structlog.typing.Processor]
    if "JOURNAL_STREAM" in os.environ and _stream_is_journal():
        renderer = _to_journal
        chain = [structlog.processors.format_exc_info]
    elif json:
        renderer = structlog.processors.JSONRenderer()
        chain = [stamp, structlog.processors.format_exc_info]
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        chain = [stamp]
    structlog.configure(
        processors=[*shared, *chain, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=level.upper(), handlers=[_Forward()], force=True)


class _Forward(logging.Handler):
    """Hands the standard library's records (asyncio's, pyfuse3's, ours) on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), **({"exc_info": exc_info} if exc_info else {})
        )


def _stream_is_journal() -> bool:
    """Tell whether standard error is the journal's stream (systemd.exec(5), JOURNAL_STREAM)."""
    facts = os.fstat(2)
    return os.environ["JOURNAL_STREAM"] == f"{facts.st_dev}:{facts.st_ino}"


def _to_journal(_logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Send an event with its fields to the journal; what is returned is not printed."""
    from systemd import (  # type: ignore[attr-defined]  # noqa: PLC0415 - only under systemd
        journal,
    )

    fields: dict[str, Any] = {
        key.upper(): value if isinstance(value, bytes) else str(value)
        for key, value in event.items()
        if key not in {"event", "level"}
    }
    journal.send(str(event.get("event", "")), PRIORITY=_PRIORITIES.get(method, 6), **fields)
    raise structlog.DropEvent
