"""Memory for large blocks, which costs up to a quarter of the time that decompressing them takes.

So it is used again, and where it is new the kernel is asked for many pages at once, and for huge
ones. A virtual machine may have given what it has free of these back to its host, and getting them
from there takes longer than decompressing a block: then small ones are asked for, which mostly have
been in use a moment ago.
"""

import contextlib
import mmap
import time
from collections import deque
from typing import Final

_SPARES: Final = 2
_LARGEST_SPARE: Final = 16 << 20  # bytes
_HUGE_PAGE: Final = 2 << 20
_TOO_SLOW: Final = 1e-3  # seconds of CPU time for a huge page; most take 0.2 ms, from a host 4 ms
_MADV_POPULATE_WRITE: Final = 23  # Linux 5.14; the mmap module has no name for it


class Memory:
    """Gives memory, and takes it back. Safe in threads."""

    def __init__(self) -> None:
        self._spares: deque[mmap.mmap] = deque(maxlen=_SPARES)
        self._huge_pages = True

    def take(self, size: int) -> mmap.mmap:
        """Memory of this size with anything in it. Raises MemoryError."""
        for _ in range(_SPARES):
            try:
                spare = self._spares.popleft()
            except IndexError:
                break
            if len(spare) == size and not _is_in_use(spare):
                return spare
            self._spares.append(spare)
        try:
            memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError from error
        self._populate(memory)
        return memory

    def give_back(self, block: bytes | memoryview) -> None:
        """Take the memory of a block that is not needed any more, once nobody looks at it."""
        if (
            isinstance(block, memoryview)
            and isinstance(block.obj, mmap.mmap)
            and len(block) <= _LARGEST_SPARE
        ):
            self._spares.append(block.obj)

    def _populate(self, memory: mmap.mmap) -> None:
        """Have the kernel give the pages, where it can, in a few steps."""
        size = len(memory)
        start = 0
        with contextlib.suppress(OSError):  # else it gives them as they are written
            while self._huge_pages and size - start >= _HUGE_PAGE:
                memory.madvise(mmap.MADV_HUGEPAGE, start, _HUGE_PAGE)
                began = time.thread_time()
                memory.madvise(_MADV_POPULATE_WRITE, start, _HUGE_PAGE)
                self._huge_pages = time.thread_time() - began < _TOO_SLOW
                start += _HUGE_PAGE
            if start < size:
                memory.madvise(_MADV_POPULATE_WRITE, start, size - start)


def _is_in_use(memory: mmap.mmap) -> bool:
    """Whether there is a view of it: Python refuses to resize it then, and else does nothing."""
    try:
        memory.resize(len(memory))
    except (BufferError, OSError, SystemError, ValueError):  # the others: it cannot be told
        return True
    return False
