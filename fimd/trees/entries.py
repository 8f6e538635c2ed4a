"""What a layer holds, as the writer takes it: to pack parts of layers anew, or to compare them."""

import stat
from collections.abc import Generator

from fimd.dwarfs.reader import Image
from fimd.dwarfs.tree import HOLE
from fimd.dwarfs.write import Entry, Piece

_PIECE = 1 << 20


def entry_of(path: bytes, image: Image, inode: int) -> Entry:
    """Return an inode of a layer as an entry, whose content `read` reads."""
    facts = image.stat(inode)
    is_file = stat.S_ISREG(facts.mode)
    return Entry(
        path,
        facts.mode,
        facts.uid,
        facts.gid,
        facts.mtime_ns,
        size=facts.size if is_file else 0,
        rdev=facts.rdev,
        target=image.readlink(inode) if stat.S_ISLNK(facts.mode) else b"",
        identity=(id(image), inode) if is_file and facts.nlink > 1 else None,
        hole_bytes=facts.size - facts.allocated if is_file else 0,
        source=(image, inode),
    )


def read(entry: Entry) -> Generator[Piece]:
    """The content of an entry of a layer, as `ReadContent` describes it."""
    image, inode = entry.source
    file = image.file_map(inode)
    offset = 0
    for extent in file.extents:
        end = offset + extent.size
        if extent.block == HOLE:
            yield extent.size
            offset = end
        while offset < end:
            size = min(_PIECE, end - offset)
            yield image.read_map(file, offset, size)
            offset += size
