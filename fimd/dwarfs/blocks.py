"""The blocks that hold the files' bytes: decompressed once, kept while they fit."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from fimd.dwarfs.codecs import Buffer


class BlockCache:
    """The most recently used blocks of one image, bounded by their bytes. Safe in threads.

    Whoever first asks for a block loads it, and who asks meanwhile waits for the same load. The
    block in use is kept even where it alone is larger than `capacity` bytes. `on_dropped` gets what
    is not kept any more, which somebody may still be using.
    """

    def __init__(
        self,
        load: Callable[[int], Buffer],
        capacity: int,
        on_dropped: Callable[[Buffer], None] = lambda _: None,
    ) -> None:
        self._load = load
        self._on_dropped = on_dropped
        self._capacity = capacity
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, Buffer] = OrderedDict()
        self._loading: dict[int, Future[Buffer]] = {}
        self.used = 0  # bytes

    def peek(self, number: int) -> Buffer | None:
        """The block where it is at hand."""
        with self._lock:
            block = self._blocks.get(number)
            if block is not None:
                self._blocks.move_to_end(number)
            return block

    def get(self, number: int) -> Buffer:
        """The block, loaded by this thread or by another one. Raises what loading raises."""
        with self._lock:
            block = self._blocks.get(number)
            if block is not None:
                self._blocks.move_to_end(number)
                return block
            future = self._loading.get(number)
            mine = future is None
            if future is None:
                future = self._loading[number] = Future()
        if not mine:
            return future.result()
        try:
            block = self._load(number)
        except BaseException as error:
            with self._lock:
                del self._loading[number]
            future.set_exception(error)
            raise
        with self._lock:
            del self._loading[number]
            self._blocks[number] = block
            self.used += len(block)
            while self.used > self._capacity and len(self._blocks) > 1:
                self._drop(next(iter(self._blocks)))
        future.set_result(block)
        return block

    def drop(self, number: int) -> None:
        """Let go of a block."""
        with self._lock:
            if number in self._blocks:
                self._drop(number)

    def _drop(self, number: int) -> None:
        block = self._blocks.pop(number)
        self.used -= len(block)
        self._on_dropped(block)

    def clear(self) -> None:
        """Let go of every block."""
        with self._lock:
            self._blocks.clear()
            self.used = 0
