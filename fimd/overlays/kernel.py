"""Kernel overlayfs, kept by a holder process in namespaces of its own.

A plain user may mount an overlay only in a user namespace. One process holds that namespace, and
the instances join it, so that all see one coherent overlay; several overlay mounts over one upper
directory would be undefined behaviour. The mount ends with its namespace.
"""

import asyncio
import os
from typing import Final

from fimd.base.errors import MountError, UnsupportedError
from fimd.base.limits import Limit
from fimd.mounts.output import Outputs
from fimd.mounts.process import Process
from fimd.mounts.table import MountTable
from fimd.overlays.stack import Overlay, StackDirectory

_MOST_LAYERS: Final = 500
"""OVL_MAX_STACK of the kernel, fs/overlayfs/params.h."""

_INDEX: Final = "the kernel's index of links is for who is root on the machine"

LIMITS: Final = (
    Limit("links of layers", "hard links that a layer has part when one is changed", _INDEX),
    Limit(
        "numbers of layers' links",
        "a layer's file and a hard link made of it have two inode numbers",
        _INDEX,
    ),
    Limit(
        "directories of layers",
        "renaming one is refused (EXDEV), and mv copies it",
        "the kernel follows such a name only for who is root on the machine",
    ),
)

# Positional parameters, never text: $1 the options, $2 the source.
_HOLDER: Final = 'mount -t overlay -o "$1" "$2" ../merged && echo ready && exec sleep infinity'


async def mount(
    stack: StackDirectory, _table: MountTable, outputs: Outputs, seconds: float
) -> Overlay:
    """Mount the overlay in a new namespace and leave a process that holds it."""
    if stack.layers > _MOST_LAYERS:
        raise UnsupportedError(
            f"kernel overlayfs takes {_MOST_LAYERS} layers, and these are {stack.layers}: squash "
            "some of them (fimctl layer squash)"
        )
    options = f"lowerdir={stack.top_down()},upperdir=../upper,workdir=../work,userxattr"
    as_root = os.getuid() == 0
    namespaces = ["--mount"] if as_root else ["--user", "--map-root-user", "--mount"]
    # what is unmounted outside must not stay busy in here
    namespaces += ["--propagation", "slave"]
    holder = ["sh", "-c", _HOLDER, "fimd-holder", options, f"fimd-{stack.id}"]
    reader, writer = os.pipe()
    output, errors = outputs.new("overlay-holder", "fim_stack", stack.id)
    try:
        process = Process.spawn(
            ["unshare", *namespaces, "--", *holder],
            directory=stack.links,
            output=writer,
            errors=errors,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
        os.close(errors)
    try:
        if await _first_words(reader, seconds) != b"ready\n":
            await output.ended(1.0)
            raise MountError(f"kernel overlay: {output.first or 'the holder ended without a word'}")
    except BaseException:
        await process.stop()
        raise
    return held_by(process, stack.merged)


def held_by(process: Process, root: str, *, owned: bool = True) -> Overlay:
    """Return the overlay whose namespaces a process holds: the holder, or one that joined it.

    `owned` is for the holder: it is ended with the overlay.
    """
    join = ["nsenter", "--target", str(process.pid), "--mount"]
    if os.getuid() != 0:
        join += ["--user", "--preserve-credentials"]
    return Overlay(process, root, (*join, "--wd=.", "--"), None, owned)


async def _first_words(descriptor: int, seconds: float) -> bytes:
    """Read from the holder until it is ready or has ended. Closes the descriptor."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    said = b""
    try:
        async with asyncio.timeout(seconds):
            while said != b"ready\n" and (line := await reader.readline()):
                said += line
    except (TimeoutError, ValueError):
        raise MountError(f"kernel overlay: it was not mounted within {seconds:g} s") from None
    finally:
        transport.close()
    return said
