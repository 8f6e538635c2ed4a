"""The tree that an image's metadata describes: names, attributes, and where content is.

Everything here is by inode number, the root being 0, and is decoded when it is asked for; what is
asked for most (a directory with its entries' attributes) is decoded with few operations each.

Up to format 2.2 each name has attributes of its own, and names share an inode number as soon as
their content is equal. There the entry's number stands for the inode's, so that every name keeps
its own times and owner.
"""

import errno
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.metadata import Metadata

ROOT: Final = 0
HOLE: Final = -1
_LARGE_HOLE: Final = 0xFFFF_FFFF
_MAX_SIZE: Final = (1 << 63) - 1
_MAX_SECONDS: Final = 1 << 33  # beyond the year 2242, and far inside what 64 bits of ns hold


class Attributes(NamedTuple):
    """What stat(2) says of an inode. Sizes are in bytes, times in nanoseconds since 1970."""

    inode: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    allocated: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class Extent(NamedTuple):
    """A piece of a file: `size` bytes at `offset` of the block, or of nothing where it is HOLE."""

    block: int
    offset: int
    size: int


class Tree:
    """Reads one image's tree. Safe in threads: nothing changes but what is cached whole."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self._inodes = metadata.inodes.records()
        self._entries = metadata.entries.records()
        self._chunks = metadata.chunks.records()
        inodes, chunks = metadata.inodes, metadata.chunks
        self._mode, self._owner, self._group = (inodes.field(number) for number in (2, 4, 5))
        self._atime, self._mtime, self._ctime = (inodes.field(number, 64) for number in (6, 7, 8))
        self._atime_part, self._mtime_part, self._ctime_part = (
            inodes.field(number, 64) for number in (10, 11, 12)
        )
        self._links = inodes.field(14)
        self._block, self._offset, self._size = (chunks.field(number) for number in (1, 2, 3))
        name_field, inode_field = (1, 3) if metadata.has_entry_table else (1, 2)
        self._entry_name = metadata.entries.field(name_field)
        self._entry_inode = metadata.entries.field(inode_field)

    def lookup(self, directory: int, name: bytes) -> int | None:
        """The inode of a name in a directory, None where there is none."""
        low, high = self._entry_range(directory)
        name_shift, name_mask = self._entry_name
        names, entries = self.metadata.names, self._entries
        end = high
        while low < high:
            middle = (low + high) // 2
            if names[entries[middle] >> name_shift & name_mask] < name:
                low = middle + 1
            else:
                high = middle
        if low == end:
            return None
        record = entries[low]
        if names[record >> name_shift & name_mask] != name:
            return None
        return low if self.metadata.has_entry_table else self._entry_target(record)

    def readdir(self, directory: int, start: int = 0) -> Iterator[tuple[bytes, int]]:
        """Name and inode of each entry from number `start` on, in the order of the names' bytes."""
        low, high = self._entry_range(directory)
        name_shift, name_mask = self._entry_name
        names, entries, target = self.metadata.names, self._entries, self._entry_target
        by_name = self.metadata.has_entry_table
        for index in range(low + start, high):
            record = entries[index]
            name = names[record >> name_shift & name_mask]
            if b"/" in name or b"\0" in name or name in (b"", b".", b".."):
                raise DamagedError(f"a directory holds {name!r}, which is no file's name")
            yield name, index if by_name else target(record)

    def attributes(self, inode: int) -> Attributes:
        """What stat(2) would say. Raises DamagedError where the tables contradict each other."""
        meta = self.metadata
        record = self._inodes[inode]
        try:
            mode = meta.modes[record >> self._mode[0] & self._mode[1]]
            uid = record >> self._owner[0] & self._owner[1]
            gid = record >> self._group[0] & self._group[1]
            if meta.uids:  # without the table the numbers are the ids themselves
                uid = meta.uids[uid]
            if meta.gids:
                gid = meta.gids[gid]
        except IndexError:
            raise DamagedError(f"inode {inode} has an owner, group or mode out of range") from None
        number = self._number(inode)
        nlink = 1
        rdev = 0
        if number < meta.first_link:
            low, high = self._entry_range(inode)
            size = allocated = high - low
        elif number < meta.first_file:
            size = allocated = len(self.readlink(inode))
        elif number < meta.first_device:
            size, allocated = self.sizes(inode)
            if meta.has_link_counts:
                nlink = (record >> self._links[0] & self._links[1]) + 1
            else:
                nlink = meta.link_counts[number]
        else:
            size = allocated = 0
            if number < meta.first_other:
                rdev = meta.devices[number - meta.first_device] if meta.has_devices else 0
        mtime = self._time(record, self._mtime, self._mtime_part)
        if meta.mtime_only:
            atime = ctime = mtime
        else:
            atime = self._time(record, self._atime, self._atime_part)
            ctime = self._time(record, self._ctime, self._ctime_part)
        return Attributes(inode, mode, nlink, uid, gid, rdev, size, allocated, atime, mtime, ctime)

    def mode(self, inode: int) -> int:
        """st_mode alone."""
        meta = self.metadata
        record = self._inodes[inode]
        number = record >> self._mode[0] & self._mode[1]
        if number >= len(meta.modes):
            raise DamagedError(f"inode {inode} has a mode out of range")
        return meta.modes[number]

    def is_directory(self, inode: int) -> bool:
        """Whether the inode has entries."""
        return self._number(inode) < self.metadata.first_link

    def is_file(self, inode: int) -> bool:
        """Whether the inode has content."""
        return self.metadata.first_file <= self._number(inode) < self.metadata.first_device

    def readlink(self, inode: int) -> bytes:
        """A symbolic link's target."""
        meta = self.metadata
        number = self._number(inode) - meta.first_link
        if not 0 <= number < meta.first_file - meta.first_link:
            raise OSError(errno.EINVAL, "not a symbolic link")
        target = meta.symlinks[meta.symlink_table[number]]
        if b"\0" in target:
            raise DamagedError("a link's target holds a NUL")
        if meta.path_separator not in (0, ord("/")):
            return target.replace(bytes([meta.path_separator & 0xFF]), b"/")
        return target

    def object_number(self, inode: int) -> int:
        """Which file object, an index into the chunk table, an inode has for content."""
        meta = self.metadata
        number = self._number(inode) - meta.first_file
        if not 0 <= number < meta.first_device - meta.first_file:
            raise OSError(
                errno.EISDIR if self.is_directory(inode) else errno.EINVAL, "not a regular file"
            )
        if not meta.has_shared_files or number < meta.unique_files:
            return number
        return meta.unique_files + meta.shared_files[number - meta.unique_files]

    def sizes(self, inode: int) -> tuple[int, int]:
        """A file's size, and how many of its bytes are not in holes."""
        first, last = self._chunk_range(inode)
        if last - first == 1:  # most files: without a list
            extent = self._extent(first)
            return extent.size, (extent.size if extent.block != HOLE else 0)
        return self.sizes_of_chunks(first, last)

    def sizes_of_chunks(self, first: int, last: int) -> tuple[int, int]:
        """The same of what chunks `first` to `last` (not included) hold."""
        size = allocated = 0
        for index in range(first, last):
            extent = self._extent(index)
            size += extent.size
            if extent.block != HOLE:
                allocated += extent.size
        if size > _MAX_SIZE:
            raise DamagedError(f"a file has {size} bytes")
        return size, allocated

    def extents(self, inode: int) -> list[Extent]:
        """The pieces of a file, in order; none is empty."""
        extents = map(self._extent, range(*self._chunk_range(inode)))
        return [extent for extent in extents if extent.size]

    def _entry_target(self, record: int) -> int:
        inode = record >> self._entry_inode[0] & self._entry_inode[1]
        if inode >= self.metadata.inode_count:
            raise DamagedError(f"an entry has inode {inode} of {self.metadata.inode_count}")
        return inode

    def _number(self, inode: int) -> int:
        """The number by which the tables of the inode's type know it."""
        meta = self.metadata
        if not 0 <= inode < meta.node_count:
            raise FileNotFoundError(errno.ENOENT, f"no inode {inode}")
        return self._entry_target(self._entries[inode]) if meta.has_entry_table else inode

    def _entry_range(self, directory: int) -> tuple[int, int]:
        meta = self.metadata
        number = self._number(directory)
        if number >= meta.first_link:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory")
        low, high = meta.first_entries[number], meta.first_entries[number + 1]
        if not low <= high <= meta.entry_count:
            raise DamagedError(f"directory {directory} has entries {low} to {high}")
        return low, high

    def _chunk_range(self, inode: int) -> tuple[int, int]:
        table = self.metadata.chunk_table
        number = self.object_number(inode)
        if number + 1 >= len(table):
            raise DamagedError(f"file inode {inode} is not in the chunk table")
        first, last = table[number], table[number + 1]
        if not first <= last <= len(self._chunks):
            raise DamagedError(f"file inode {inode} has chunks {first} to {last}")
        return first, last

    def _extent(self, index: int) -> Extent:
        record = self._chunks[index]
        block = record >> self._block[0] & self._block[1]
        offset = record >> self._offset[0] & self._offset[1]
        size = record >> self._size[0] & self._size[1]
        meta = self.metadata
        if block == meta.hole_block:
            if offset == _LARGE_HOLE:
                return Extent(HOLE, 0, meta.large_holes[size])
            return Extent(HOLE, 0, size * meta.block_size + offset)
        if offset + size > meta.block_size:
            raise DamagedError(f"chunk {index} leaves its block: {size} bytes at {offset}")
        return Extent(block, offset, size)

    def _time(self, record: int, whole: tuple[int, int], part: tuple[int, int]) -> int:
        meta = self.metadata
        seconds = meta.time_resolution * (meta.timestamp_base + (record >> whole[0] & whole[1]))
        nanoseconds = meta.nanosecond_multiplier * (record >> part[0] & part[1])
        if seconds >= _MAX_SECONDS or nanoseconds >= 1_000_000_000:
            raise DamagedError(f"a time of {seconds} s and {nanoseconds} ns")
        return seconds * 1_000_000_000 + nanoseconds


def kind(mode: int) -> str:
    """The letter of a file type: d f l c b p s."""
    return "f" if stat.S_ISREG(mode) else stat.filemode(mode)[0]
