"""What a worker does that serves one layer by the embedded DwarFS (see fimd.mounts.template)."""

# What the reader imports only when an image needs it is imported here, once for every worker.
import concurrent.futures.thread  # noqa: F401
import lzma  # noqa: F401
from collections.abc import Callable
from typing import Any

import lz4.block  # noqa: F401
import xxhash  # noqa: F401
import zstandard  # noqa: F401

from fimd.dwarfs.reader import Image
from fimd.dwarfs.serve import serve as serve_image
from fimd.layers import owners


async def serve(arguments: dict[str, Any], files: list[int], on_ready: Callable[[], None]) -> None:
    """Serve the DwarFS image in `files[0]` until it is unmounted."""
    with Image.open(files[0], arguments["offset"], arguments["size"]) as image:
        kept = owners.are_kept(image)
        await serve_image(
            image,
            arguments["mount_point"],
            uid=None if kept else arguments["uid"],
            gid=None if kept else arguments["gid"],
            fsname=arguments["source"],
            allow_other=arguments["allow_other"],
            cache_bytes=arguments["cache"],
            inode_offset=arguments["inode_offset"],
            on_ready=on_ready,
        )
