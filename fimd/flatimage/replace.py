"""Putting one layer in the place of several in an image's chain.

The image is written anew beside itself and takes the old one's name when it is complete, so that
a crash leaves the old image or the new one. Whoever has the old one open goes on with that.
"""

import os
import secrets
import stat
from contextlib import suppress

from .append import settle
from .chain import LENGTH, Chain, EmbeddedLayer, read_chain
from .copy import Cancelled, Progress, copy_range, ignore_progress, never_cancelled
from .errors import ImageError
from .file import exclusive, name_of, size_of, sync, write_at, write_errors
from .layout import find_layout


def replace_layers(
    image: int,
    directory: int,
    path: str,
    first: EmbeddedLayer,
    last: EmbeddedLayer,
    source: int,
    *,
    progress: Progress = ignore_progress,
    cancelled: Cancelled = never_cancelled,
) -> EmbeddedLayer:
    """Replace the layers from `first` to `last` by the one in the open file `source`.

    `image` is open for writing, and so is the `directory` that it lies in; `path` is both.
    Raises ImageError where they are not in the image any more; then the image is as it was.
    """
    settle(image)
    with exclusive(image):
        chain = read_chain(image, find_layout(image))
        _check(image, chain, first, last)
        name = os.path.basename(path)
        return _rewrite(directory, name, image, chain, (first, last), source, progress, cancelled)


def _check(image: int, chain: Chain, first: EmbeddedLayer, last: EmbeddedLayer) -> None:
    if chain.faults:
        raise ImageError(f"{name_of(image)} is damaged {chain.faults[0]}: copy it again")
    if first not in chain.layers or last not in chain.layers or first.offset > last.offset:
        raise ImageError(f"the layers of {name_of(image)} are others now: list them again")


def _rewrite(
    directory: int,
    name: str,
    image: int,
    chain: Chain,
    replaced: tuple[EmbeddedLayer, EmbeddedLayer],
    source: int,
    progress: Progress,
    cancelled: Cancelled,
) -> EmbeddedLayer:
    first, last = replaced
    size = size_of(source)
    part = f".{name}.{secrets.token_hex(4)}.part"
    layer = EmbeddedLayer(first.offset, size)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        target = os.open(part, flags, 0o600, dir_fd=directory)
    except OSError as error:
        raise ImageError(
            f"the directory of {name_of(image)} cannot be written: {error.strerror}"
        ) from error
    try:
        copy_range(image, 0, target, 0, first.record_offset, cancelled=cancelled)
        write_at(target, layer.record_offset, LENGTH.pack(size))
        copy_range(source, 0, target, layer.offset, size, progress, cancelled)
        copy_range(image, last.end, target, layer.end, chain.end - last.end, cancelled=cancelled)
        with write_errors(target):
            _copy_attributes(image, target)
        sync(target)
        written = read_chain(target, find_layout(target))
        if layer not in written.layers or written.faults:
            raise ImageError(f"{part} was not written correctly: {written.faults}")
        with write_errors(target):
            os.replace(part, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=directory)
        raise
    finally:
        os.close(target)
    return layer


def _copy_attributes(source: int, target: int) -> None:
    facts = os.fstat(source)
    if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):
            os.fchown(target, facts.st_uid, facts.st_gid)
    os.fchmod(target, stat.S_IMODE(facts.st_mode))
    for name in os.listxattr(source):
        with suppress(OSError):  # some only the kernel or root may set
            os.setxattr(target, name, os.getxattr(source, name))
