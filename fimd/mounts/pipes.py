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


async def read_to_end(descriptor: int) -> bytes:
    """Read from a pipe until its end, at most 4 KiB."""
    said = b""
    while len(said) < 4096:
        await readable(descriptor)
        data = os.read(descriptor, 4096)
        if not data:
            break
        said += data
    return said
