"""What programs say that serve mounts, logged with what they serve.

Such a program outlives the daemon: what it says must neither end it nor block it while nobody
reads. So each has a named pipe in the runtime tree, open for reading and writing and without
blocking. There is always a reader, and what does not fit into the pipe (64 KiB, pipe(7)) is lost.
The next daemon knows by the pipe's name whose it is, and reads on. A pipe is at its end when the
program, and whatever it started, has closed it.
"""

import asyncio
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"(?P<field>fim_[a-z]+)\.(?P<value>\w+)\.(?P<program>[\w-]+)\.\d+")
_CHUNK: Final = 64 << 10
_PAUSE: Final = 0.05
"""Seconds between two reads of one pipe: a program that never stops talking gets 1.3 MB/s."""
_LINES: Final = 100
_PERIOD: Final = 10.0
"""A program may log that many lines in that many seconds; what is more is counted."""
_LONGEST: Final = 2048
_NOISE: Final = {"unionfs": "METANAME = ", "unionfs-fuse": "METANAME = "}
"""What lines begin with that a program says whenever it does its work: release 1.0 of unionfs-fuse
at every name that it lists."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Output:
    """One program's output, with the first and the last line that it said."""

    def __init__(self, path: Path, on_end: Callable[[], None]) -> None:
        """Read a pipe to its end, and log it. Raises OSError, or ValueError for another file."""
        match = _NAME.fullmatch(path.name)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        if match is None or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ValueError(f"{path} is no program's output")
        self.first = self.last = ""
        self._fields = {match["field"]: match["value"], "program": match["program"]}
        self._descriptor = descriptor
        self._on_end = on_end
        self._ended = asyncio.Event()
        self._rest = b""
        self._until = 0.0
        self._logged = self._left_out = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(0, self._listen)

    async def ended(self, seconds: float) -> None:
        """Wait until all was read that the program said, at most that long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    def close(self) -> None:
        """Stop reading; the pipe stays for the next daemon."""
        if self._timer is not None:
            self._timer.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._ended.set()

    def _listen(self) -> None:
        self._timer = None
        self._loop.add_reader(self._descriptor, self._read)
        self._read()  # poll(2) does not tell of an end that came before

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > _LONGEST:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._take(line)
        if data:
            self._loop.remove_reader(self._descriptor)
            self._timer = self._loop.call_later(_PAUSE, self._listen)
            return
        self._count_left_out()
        self.close()
        self._on_end()

    def _take(self, line: bytes) -> None:
        text = _plain(line)
        noise = _NOISE.get(self._fields["program"])
        if not text.strip() or (noise is not None and text.startswith(noise)):
            return
        self.last = text.strip()
        self.first = self.first or self.last
        now = self._loop.time()
        if now >= self._until:
            self._count_left_out()
            self._until, self._logged = now + _PERIOD, 0
        if self._logged >= _LINES:
            self._left_out += 1
            return
        self._logged += 1
        log.info(text.rstrip(), **self._fields)

    def _count_left_out(self) -> None:
        if self._left_out:
            log.warning("a program says too much", left_out=self._left_out, **self._fields)
            self._left_out = 0


def _plain(line: bytes) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line[:_LONGEST].decode(errors="replace"))


def log_file(descriptor: int, program: str, field: str, value: str) -> str:
    """Log what a program has said to a file of its own, as far as one may; return the last line.

    That is for one that is soon over: it is not read of before. `field` and `value` say what it
    serves.
    """
    lines = [_plain(line) for line in os.pread(descriptor, _CHUNK, 0).splitlines()]
    said = [line.rstrip() for line in lines if line.strip()]
    for line in said[:_LINES]:
        log.info(line, **{field: value, "program": program})
    return said[-1].strip() if said else ""


class Outputs:
    """The pipes of all programs that serve mounts, in a directory of the user's own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[Path, Output] = {}
        self._numbers = count()

    def adopt(self) -> None:
        """Go on reading what programs say that a former daemon started."""
        for path in self._directory.iterdir():
            try:
                self._follow(path)
            except (OSError, ValueError):
                path.unlink()

    def new(self, program: str, field: str, value: str) -> tuple[Output, int]:
        """Make a pipe for a program, and return it with the descriptor that the program gets.

        `field`, like fim_layer, and `value` say what it serves. The descriptor is the caller's.
        """
        name = re.sub(r"[^\w-]", "_", os.path.basename(program))
        path = self._directory / f"{field}.{value}.{name}.{next(self._numbers)}"
        while True:
            try:
                os.mkfifo(path, 0o600)
                break
            except FileExistsError:  # a former daemon's
                path = path.with_suffix(f".{next(self._numbers)}")
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags)  # first, so that the reader finds no end at once
        return self._follow(path), descriptor

    def close(self) -> None:
        """Stop reading; the pipes stay."""
        for output in self._open.values():
            output.close()

    def _follow(self, path: Path) -> Output:
        def on_end() -> None:
            del self._open[path]
            path.unlink(missing_ok=True)

        self._open[path] = output = Output(path, on_end)
        return output
