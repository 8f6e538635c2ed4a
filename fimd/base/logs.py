"""Where the daemon's and its workers' messages go: the journal, a terminal, JSON lines, a file.

A key of an event is a field: `fim_instance`, `fim_image`, `fim_layer`, `fim_stack` and `fim_job`
say what it is about, and `fimctl logs` finds them. The journal has them in capitals, as it demands.
"""

import json as json_format
import logging
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final, cast

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder
from structlog.typing import EventDict, WrappedLogger

from fimd.base.texts import printable

FILE: Final = "fimd.log"
"""Where messages are kept in the user's runtime tree when there is no journal: JSON lines."""
_KEPT: Final = 512 << 10
"""Bytes after which the file becomes fimd.log.1, in place of the one before."""
_LONGEST: Final = 16 << 10
_PRIORITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_CODE: Final = {"pathname": "code_file", "lineno": "code_line", "func_name": "code_func"}


@dataclass
class _Output:
    """Where this process's messages go; structlog has one configuration for a process, too."""

    level: int = logging.INFO
    descriptor: int = 2
    json: bool = False
    file: str | None = None


_output: Final = _Output()


def setup(
    level: str,
    *,
    json: bool = False,
    file: str | None = None,
    descriptor: int = 2,
) -> None:
    """Send structlog's and the standard library's messages of at least `level` to one place.

    `descriptor` is where it goes on a terminal, and is the journal's stream under systemd: standard
    error, unless that is another's.
    """
    _output.json, _output.file, _output.descriptor = json, file, descriptor
    renderer: structlog.typing.Processor
    if _has_journal():
        renderer = _to_journal
    elif json:
        renderer = structlog.processors.JSONRenderer(default=str)
    else:
        renderer = _Console()
    structlog.configure(
        processors=[
            _filter,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            CallsiteParameterAdder(
                [
                    CallsiteParameter.PATHNAME,
                    CallsiteParameter.LINENO,
                    CallsiteParameter.FUNC_NAME,
                ],
                additional_ignores=["logging", "fimd.base.logs"],
            ),
            _name_code,
            structlog.processors.TimeStamper(fmt="iso", utc=False),
            structlog.processors.format_exc_info,
            _to_file,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.PrintLoggerFactory(
            sys.stderr if descriptor == 2 else os.fdopen(descriptor, "w", closefd=False)
        ),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forward()], force=True)
    set_level(level)


def leave_terminal() -> None:
    """Say nothing on a terminal: it is that of who works on the bus which started this process.

    For the beginning; what is said is in the file all the same.
    """
    if os.isatty(2):
        silent = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(silent, 2)
        os.close(silent)


def add_to_all(fields: Mapping[str, str]) -> None:
    """Add fields to every message of this process from now on, in place of those added before."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**fields)


def set_level(level: str) -> None:
    """Change the least severe message that is logged."""
    _output.level = getattr(logging, level.upper())
    logging.getLogger().setLevel(_output.level)


def keep_in(directory: str) -> None:
    """Keep messages in a file of that directory too, unless the journal has them."""
    path = os.path.join(directory, FILE)
    if not _has_journal():
        _output.file = path
        return
    for old in (path, f"{path}.1"):
        with suppress(FileNotFoundError):
            os.unlink(old)


def output_of(program: str) -> IO[bytes]:
    """Return where a program's own output goes that belongs to nobody's terminal.

    That is the journal, under the program's name, where messages go there; else nowhere.
    """
    if _has_journal():
        from systemd import journal  # type: ignore[attr-defined]  # noqa: PLC0415 - only there

        with suppress(OSError):
            return cast("IO[bytes]", journal.stream(program))
    return open(os.devnull, "wb")


def inherited() -> dict[str, Any]:
    """Return the arguments of `setup` by which a worker logs as this process does."""
    level = logging.getLevelName(_output.level).lower()
    return {"level": level, "json": _output.json, "file": _output.file}


class _Forward(logging.Handler):
    """Hands the standard library's records (asyncio's, pyfuse3's, ours) on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), **({"exc_info": exc_info} if exc_info else {})
        )


def _filter(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if getattr(logging, method.upper(), logging.ERROR) < _output.level:
        raise structlog.DropEvent
    return event


def _name_code(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for old, new in _CODE.items():
        event[new] = event.pop(old, "")
    return event


def _has_journal() -> bool:
    """Tell whether messages go to the journal's stream (systemd.exec(5), JOURNAL_STREAM)."""
    with suppress(OSError):
        facts = os.fstat(_output.descriptor)
        return os.environ.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"
    return False


def _to_file(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Append an event to the file; a full disk costs messages, never the daemon."""
    if _output.file is not None:
        line = json_format.dumps({**event, "pid": os.getpid()}, default=str)
        with suppress(OSError):
            _append(_output.file, line.encode(errors="replace")[:_LONGEST] + b"\n")
    return event


def _append(path: str, line: bytes) -> None:
    """Append a line by one write; daemon and workers share the file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        facts = os.fstat(descriptor)
        if stat.S_ISREG(facts.st_mode):
            os.write(descriptor, line)
            if facts.st_size > _KEPT:
                os.replace(path, f"{path}.1")
    finally:
        os.close(descriptor)


class _Console:
    """A line for people, in colours on a terminal that wants them (https://no-color.org)."""

    def __init__(self) -> None:
        coloured = (
            os.isatty(_output.descriptor)
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )
        self._render = structlog.dev.ConsoleRenderer(colors=coloured)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        for name in _CODE.values():
            event.pop(name, None)
        return self._render(logger, method, _shown(event))


def _shown(event: EventDict) -> EventDict:
    """Return an event whose values hold nothing that a terminal obeys, nor lines of their own."""
    return {
        key: printable(value) if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
    }


def _to_journal(_logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Send an event with its fields to the journal; what is returned is not printed."""
    from systemd import (  # type: ignore[attr-defined]  # noqa: PLC0415 - only under systemd
        journal,
    )

    message = str(event.pop("event", ""))
    exception = event.pop("exception", None)
    for name in ("level", "timestamp"):
        event.pop(name, None)
    shown = [f"{key}={value}" for key, value in _shown(event).items() if key not in _CODE.values()]
    text = " ".join([printable(message), *shown]) + (f"\n{exception}" if exception else "")
    fields = {
        **{key.upper(): value for key, value in event.items()},
        "MESSAGE": text,
        "PRIORITY": _PRIORITIES.get(method, 3),
        "SYSLOG_IDENTIFIER": "fimd",
        "FIM_EVENT": message,
    }
    with suppress(OSError):  # a journal that is being restarted costs messages, not the daemon
        journal.sendv(*(_field(name, value) for name, value in fields.items()))
    raise structlog.DropEvent


def _field(name: str, value: object) -> bytes:
    data = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
    return name.encode() + b"=" + data
