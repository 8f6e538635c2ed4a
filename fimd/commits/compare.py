"""Whether a layer holds exactly what it was made of, compared name by name and byte by byte."""

import stat
from collections.abc import Callable, Iterable
from contextlib import closing

from fimd.dwarfs.errors import CancelledError, DamagedError
from fimd.dwarfs.files import FileMap
from fimd.dwarfs.reader import Image
from fimd.dwarfs.tree import HOLE, Attributes
from fimd.dwarfs.verify import verify
from fimd.dwarfs.write import Entry, ReadContent
from fimd.dwarfs.write.entries import printable
from fimd.dwarfs.write.metadata import storable_time

Progress = Callable[[int, int], None]
"""Told the bytes of content that were compared, and the bytes in all."""


def check_equal(
    image: Image,
    entries: Iterable[Entry],
    read: ReadContent,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> None:
    """Check that the image is sound, and holds these entries with these contents and no others.

    Raises DamagedError with the first difference, and what `read` raises.
    """
    for fault in verify(image, cancelled=cancelled):
        raise fault
    expected = {entry.path: entry for entry in entries}
    files: list[tuple[int, Entry, int]] = []
    compared: set[int] = set()
    for path, attributes in image.walk():
        entry = expected.pop(path, None)
        if entry is None:
            raise _difference(image, path, "is in the layer only")
        _check_attributes(image, entry, attributes)
        if entry.is_file and entry.size and attributes.inode not in compared:
            compared.add(attributes.inode)
            extents = image.file_map(attributes.inode).extents
            block = next((extent.block for extent in extents if extent.block != HOLE), HOLE)
            files.append((block, entry, attributes.inode))
    for path in expected:
        raise _difference(image, path, "is not in the layer")
    total, done = sum(entry.size for _, entry, _ in files), 0
    for _, entry, inode in sorted(files, key=lambda file: file[0]):
        if cancelled():
            raise CancelledError("cancelled", path=image.source.name)
        _check_content(image, entry, inode, read)
        done += entry.size
        progress(done, total)


def _check_attributes(image: Image, entry: Entry, found: Attributes) -> None:
    wanted = (entry.mode, entry.uid, entry.gid, storable_time(entry))
    if wanted != (found.mode, found.uid, found.gid, found.mtime_ns):
        raise _difference(image, entry.path, "has other attributes in the layer")
    if entry.is_file and entry.size != found.size:
        raise _difference(image, entry.path, f"has {found.size} bytes in the layer")
    if stat.S_ISLNK(entry.mode) and image.readlink(found.inode) != entry.target:
        raise _difference(image, entry.path, "points elsewhere in the layer")
    if stat.S_IFMT(entry.mode) in {stat.S_IFCHR, stat.S_IFBLK} and entry.rdev != found.rdev:
        raise _difference(image, entry.path, "is another device in the layer")


def _check_content(image: Image, entry: Entry, inode: int, read: ReadContent) -> None:
    file = image.file_map(inode)
    offset = 0
    with closing(read(entry)) as pieces:
        for piece in pieces:
            size = piece if isinstance(piece, int) else len(piece)
            if isinstance(piece, int):
                same = _is_zero(image, file, offset, size)
            else:
                same = image.read_map(file, offset, size) == piece
            if not same:
                raise _difference(image, entry.path, "has other content in the layer")
            offset += size


def _is_zero(image: Image, file: FileMap, offset: int, size: int) -> bool:
    """Whether a range reads as zeros; a hole is not read for that, however large it is."""
    for block, _, length in file.pieces(offset, size):
        if block != HOLE and bytes(image.read_map(file, offset, length)).count(0) != length:
            return False
        offset += length
    return True


def _difference(image: Image, path: bytes, fault: str) -> DamagedError:
    return DamagedError(f"{printable(path) or 'the root'} {fault}", path=image.source.name)
