"""Sections on their way to a file: compressed by threads, written in the order they were handed in.

No more sections wait than the threads work on, and one more: who hands in faster is held up.
"""

import os
import struct
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event
from typing import Final, Self

from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.format import SectionType
from fimd.dwarfs.sections import pack_section
from fimd.dwarfs.write.codecs import Buffer, compress
from fimd.dwarfs.write.entries import PackError
from fimd.dwarfs.write.kinds import Kind
from fimd.dwarfs.write.levels import NONE, Codec

POLL: Final = 0.1
"""Seconds between two looks at whether the caller has cancelled."""

_OFFSET_BITS: Final = 48


class SectionWriter:
    """The sections of one image, written to a descriptor from where it stands.

    A context manager: at its end no thread is left, and nothing more is written. The sections that
    were handed in are only all there after `finish`.
    """

    def __init__(
        self, fd: int, name: str, threads: int, cancelled: Callable[[], bool] | None
    ) -> None:
        self.written = 0  # bytes of the image
        self._fd = fd
        self._name = name
        self._cancelled = cancelled
        self._stop = Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="dwarfs-compress")
        self._most = threads + 1
        self._pending: deque[tuple[SectionType, Future[tuple[bytes, Buffer]]]] = deque()
        self._count = 0
        self._index: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(
        self, section: SectionType, codec: Codec, data: Buffer, kind: Kind = Kind.OTHER
    ) -> None:
        """Hand in a section; `data` must not change any more."""
        while len(self._pending) >= self._most:
            self._write_next()
        job = self._pool.submit(self._make, self._count, section, codec, data, kind)
        self._pending.append((section, job))
        self._count += 1
        while self._pending and self._pending[0][1].done():
            self._write_next()

    def finish(self) -> None:
        """Write what is still being compressed, and the index."""
        while self._pending:
            self._write_next()
        self._index.append(SectionType.SECTION_INDEX << _OFFSET_BITS | self.written)
        index = struct.pack(f"<{len(self._index)}Q", *self._index)
        self._write(*self._make(self._count, SectionType.SECTION_INDEX, NONE, index, Kind.OTHER))

    def check_cancelled(self) -> None:
        """Raise CancelledError where the caller wants it to end."""
        if self._cancelled is not None and self._cancelled():
            raise CancelledError("cancelled", path=self._name)

    def _make(
        self, number: int, section: SectionType, codec: Codec, data: Buffer, kind: Kind
    ) -> tuple[bytes, Buffer]:
        compression, payload = compress(codec, data, kind, self._stop.is_set)
        return pack_section(number, section, compression, payload), payload

    def _write_next(self) -> None:
        section, job = self._pending[0]
        self.check_cancelled()
        while not wait([job], POLL).done:
            self.check_cancelled()
        self._index.append(section << _OFFSET_BITS | self.written)
        self._write(*job.result())
        self._pending.popleft()

    def _write(self, *parts: Buffer) -> None:
        for part in parts:
            rest = memoryview(part)
            while rest:
                try:
                    count = os.write(self._fd, rest)
                except OSError as error:
                    raise PackError(
                        f"cannot write the image: {error.strerror}", path=self._name
                    ) from error
                rest = rest[count:]
                self.written += count
