"""`fimctl logs`: what the daemon and its workers said, of an instance, of an image, or all."""

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from fimctl.errors import ClientError
from fimctl.table import Style, json_text, path_text
from fimd.base.logs import FILE
from fimd.base.paths import RuntimeTree
from fimd.base.places import find_global
from fimd.base.texts import printable

Entry = dict[str, str]

_LINKS: Final = ("fim_layer", "fim_stack", "fim_job")
"""Fields by which an event is related to one that names the instance or the image."""
_SHOWN_APART: Final = {"event", "level", "timestamp", "exception"}
_HIDDEN: Final = {"code_file", "code_line", "code_func", "pid"}
_LEVELS: Final = {"2": "critical", "3": "error", "4": "warning", "6": "info", "7": "debug"}
_POLL: Final = 0.25


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "logs",
        help="show what the daemon said",
        description="Show the messages of the daemon and its workers: all, or those about an "
        "instance (its PID) or an image (its file). They come from the journal, or from a file "
        "in the runtime tree where systemd does not run the daemon.",
    )
    parser.add_argument("subject", nargs="?", metavar="INSTANCE|IMAGE")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("-n", "--lines", type=int, default=0, help="show only the last N")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the messages, oldest first."""
    chosen = _Filter(arguments.subject)
    file = _file()
    past = list(_read(file)) if file is not None else list(_journal(follow=False))
    for entry in past:
        chosen.matches(entry)  # a stack is mounted before the instance is there that it is for
    found = [entry for entry in past if chosen.matches(entry)]
    style = Style()
    for entry in found[-arguments.lines :] if arguments.lines > 0 else found:
        _show(entry, style, as_json=arguments.json)
    if arguments.follow:
        news = _follow(file, len(past)) if file is not None else _journal(follow=True)
        for entry in news:
            if chosen.matches(entry):
                _show(entry, style, as_json=arguments.json)
    return 0


class _Filter:
    """Knows which messages are about an instance or an image, and what belongs to it."""

    def __init__(self, subject: str | None) -> None:
        self._all = subject is None
        self._instance = subject if subject and subject.isdigit() else None
        self._image = os.path.realpath(subject) if subject and not self._instance else None
        if self._image and not os.path.lexists(self._image):
            raise ClientError(f"{subject} is neither an instance's number nor a file")
        self._related: set[str] = set()

    def matches(self, entry: Entry) -> bool:
        """Tell whether a message is wanted; each teaches what the next ones may be about."""
        if self._all:
            return True
        links = {word for name in _LINKS for word in entry.get(name, "").split()}
        direct = (
            entry.get("fim_instance") == self._instance
            if self._instance
            else self._image in {entry.get(name) for name in ("fim_image", "path", "subject")}
        )
        if direct:
            self._related |= links
        named = entry.get("fim_instance") is not None and self._instance is not None
        return direct or (not named and bool(self._related & links))


def _file() -> Path | None:
    """Return the daemon's log file; None where the journal has its messages."""
    tree = RuntimeTree(Path(find_global()) / "app" / f"u{os.getuid()}")
    path = tree.state / FILE
    return path if path.exists() else None


def _read(path: Path) -> Iterator[Entry]:
    for name in (path.with_name(f"{path.name}.1"), path):
        with suppress(FileNotFoundError):
            for line in name.read_text(errors="replace").splitlines():
                yield from _parse(line)


def _follow(path: Path, seen: int) -> Iterator[Entry]:
    """Yield what is written from now on; `seen` entries were there."""
    while True:
        entries = list(_read(path))
        yield from entries[min(seen, len(entries)) :]
        seen = len(entries)
        time.sleep(_POLL)


def _journal(*, follow: bool) -> Iterator[Entry]:
    if shutil.which("journalctl") is None:
        raise ClientError("there are no messages: fimd has not run yet")
    command = ["journalctl", f"_UID={os.getuid()}", "--identifier=fimd", "--output=json", "--quiet"]
    command += ["--follow", "--lines=0"] if follow else ["--lines=20000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            for raw in _parse(line):
                yield _from_journal(raw)
    if process.returncode:
        raise ClientError(
            "the journal can't be read: have root add you to the group systemd-journal, and log in "
            "anew"
        )


def _parse(line: str) -> Iterator[Entry]:
    try:
        facts = json.loads(line)
    except ValueError:
        return  # a line that was cut
    if isinstance(facts, dict):
        yield {
            str(key): value if isinstance(value, str) else str(value)
            for key, value in facts.items()
        }


def _from_journal(raw: Entry) -> Entry:
    """Return a journal's entry as the daemon logged it."""
    seconds = int(raw.get("__REALTIME_TIMESTAMP", "0")) / 1e6
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    entry = {
        key.lower(): value
        for key, value in raw.items()
        if not key.startswith(("_", "SYSLOG_")) and key not in {"MESSAGE", "PRIORITY", "FIM_EVENT"}
    }
    entry["event"] = raw.get("FIM_EVENT") or raw.get("MESSAGE", "")
    entry["level"] = _LEVELS.get(raw.get("PRIORITY", "6"), "info")
    entry["timestamp"] = stamp
    entry["pid"] = raw.get("_PID", "")
    return entry


def _show(entry: Entry, style: Style, *, as_json: bool) -> None:
    if as_json:
        print(json_text(entry), flush=True)
        return
    facts = " ".join(
        f"{key}={printable(value)}"
        for key, value in entry.items()
        if key not in _SHOWN_APART | _HIDDEN
    )
    clock = entry.get("timestamp", "")[:19].replace("T", " ")
    level = entry.get("level", "")
    event = printable(entry.get("event", ""))
    event = style.strong(event) if level in {"warning", "error", "critical"} else event
    print(f"{style.faint(clock)} {level:8}{event}  {style.faint(facts)}".rstrip(), flush=True)
    for line in entry.get("exception", "").splitlines():
        print(f"    {path_text(line.encode(errors='surrogateescape'))}", flush=True)
