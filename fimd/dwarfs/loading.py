"""The blocks of an image for an event loop: at hand, awaited, or on their way before anybody asks.

Threads decompress them. What is there of a block is given out while the rest of it is on its way:
a block may have 16 MiB and more, and most readers want a little of it.
"""

import asyncio
import functools
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from fimd.dwarfs.blocks import BlockCache
from fimd.dwarfs.codecs import Buffer
from fimd.dwarfs.files import FileMap
from fimd.dwarfs.memory import Memory
from fimd.dwarfs.reader import Image
from fimd.dwarfs.tree import HOLE

_PREFETCHED_BLOCKS: Final = 2


class _Load:
    """A block on its way: its first `ready` bytes are there, and `waiters` wait for more."""

    __slots__ = ("block", "loop", "ready", "waiters")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.block: Buffer = b""
        self.ready = 0
        self.waiters: list[tuple[int, asyncio.Future[Buffer]]] = []

    def wake(self) -> None:
        """Give the block to those who wait for what is there now."""
        waiting = [waiter for waiter in self.waiters if not waiter[1].done()]
        self.waiters = [waiter for waiter in waiting if waiter[0] > self.ready]
        for end, future in waiting:
            if end <= self.ready:
                future.set_result(self.block)


class Blocks:
    """The blocks of an image, of which at most `capacity` bytes are kept.

    Of a block that is given out, only the bytes before the `end` that was asked for are sure to be
    there.
    """

    def __init__(
        self, image: Image, capacity: int, pool: ThreadPoolExecutor, memory: Memory
    ) -> None:
        self._image = image
        self._memory = memory
        self._cache = BlockCache(self._decompress, capacity, self._memory.give_back)
        self._pool = pool
        self._loads: dict[int, _Load] = {}
        self._passed = HOLE
        fitting = max(1, capacity // image.block_size)
        self._prefetched = min(_PREFETCHED_BLOCKS, fitting - 1)
        self._free = fitting  # how many more may be decompressed at the same time,
        self._queue: deque[int] = deque()  # and which wait until they may

    def peek(self, number: int, end: int) -> Buffer | None:
        """The block where its bytes before `end` are at hand."""
        block = self._cache.peek(number)
        if block is None:
            load = self._loads.get(number)
            if load is not None and load.ready >= end:
                return load.block
        return block

    def load(self, number: int, end: int) -> "asyncio.Future[Buffer]":
        """The block, once a thread has its bytes before `end`, or all that there are."""
        load = self._loads.get(number) or self._start(number)
        future: asyncio.Future[Buffer] = load.loop.create_future()
        load.waiters.append((end, future))
        return future

    def prefetch(self, file: FileMap, offset: int) -> None:
        """Start on the blocks that reading on from `offset` will need."""
        for number in file.following_blocks(offset, self._prefetched):
            if number not in self._loads and self._cache.peek(number) is None:
                self._start(number)

    def passed(self, file: FileMap, number: int, end: int) -> None:
        """Let go of blocks when one was read to its end in sequence in a file that is larger.

        The kernel has them now. So a large file needs the memory of a few blocks, and leaves
        what others need where it is. The last one stays: mkdwarfs looks for repetitions in it.
        """
        block = self.peek(number, end)
        if block is not None and end == len(block) < file.size and number != self._passed:
            self._cache.drop(self._passed)
            self._passed = number

    def _start(self, number: int) -> _Load:
        load = self._loads[number] = _Load()
        self._queue.append(number)
        self._run()
        return load

    def _run(self) -> None:
        """Have threads load what may be loaded now."""
        while self._queue and self._free:
            self._free -= 1
            number = self._queue.popleft()
            loop = self._loads[number].loop
            job = loop.run_in_executor(self._pool, self._cache.get, number)
            job.add_done_callback(functools.partial(self._loaded, number))

    def _decompress(self, number: int) -> Buffer:
        """Load a block in a thread."""
        load = self._loads[number]
        for load.block, load.ready in self._image.load_block_in_steps(number, self._memory):
            if load.waiters:
                load.loop.call_soon_threadsafe(load.wake)
        return load.block

    def _loaded(self, number: int, job: "asyncio.Future[Buffer]") -> None:
        load = self._loads.pop(number)
        self._free += 1
        self._run()
        error = None if job.cancelled() else job.exception()
        for _, future in load.waiters:
            if future.done():
                continue
            if job.cancelled():
                future.cancel()
            elif error is None:
                future.set_result(job.result())
            else:
                future.set_exception(error)
                future.exception()  # who asked may have failed for another block's sake
