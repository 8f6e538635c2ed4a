"""Reading pipes from the event loop."""

import asyncio
import os


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read, or has come to its end."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()

    def wake() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)


async def read_to_end(descriptor: int, most: int = 4096) -> bytes:
    """Read from a pipe until its end, at most so many bytes."""
    said = b""
    while len(said) < most:
        await readable(descriptor)
        data = os.read(descriptor, 64 << 10)
        if not data:
            break
        said += data
    return said


class Lines:
    """The lines that a pipe brings, at most so many bytes altogether."""

    def __init__(self, descriptor: int, most: int) -> None:
        self._descriptor = descriptor
        self._left = most
        self._said = b""

    async def next(self) -> bytes:
        """Return the next line with its end; what there is without one at the pipe's end."""
        while b"\n" not in self._said and self._left > 0:
            await readable(self._descriptor)
            data = os.read(self._descriptor, 64 << 10)
            if not data:
                break
            self._left -= len(data)
            self._said += data
        line, end, self._said = self._said.partition(b"\n")
        return line + end
