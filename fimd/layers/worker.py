"""What a worker does that serves layers by the embedded DwarFS (see fimd.mounts.template)."""

# What the reader imports only when an image needs it is imported here, once for every worker.
import concurrent.futures.thread  # noqa: F401
import lzma  # noqa: F401
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import lz4.block  # noqa: F401
import xxhash  # noqa: F401
import zstandard  # noqa: F401

import fimd.dwarfs.zstd  # noqa: F401
from fimd.dwarfs.reader import Image
from fimd.dwarfs.serve import serve_all
from fimd.dwarfs.served import Shown
from fimd.layers.owners import Owners

_MOST_THREADS: Final = 8
"""That decompress at the same time: more would wait for the one that answers the kernel."""


async def serve(arguments: dict[str, Any], files: list[int], on_ready: Callable[[], None]) -> None:
    """Serve the DwarFS images in `files`, by their layers' identifiers, until it is unmounted."""
    with ExitStack() as opened:
        images = {}
        for layer in arguments["layers"]:
            image = Image.open(files[layer["file"]], layer["offset"], layer["size"])
            opened.enter_context(image)
            shown = Owners.of(image)
            images[layer["id"].encode()] = Shown(
                image,
                uid=shown.user,
                gid=shown.group,
                cache_bytes=arguments["cache"],
                inode_offset=layer["inode_offset"],
            )
        await serve_all(
            images,
            arguments["mount_point"],
            fsname=arguments["source"],
            allow_other=True,  # in this namespace: whoever runs there
            threads=min(max(os.cpu_count() or 1, 2), _MOST_THREADS),
            on_ready=on_ready,
        )
