"""The tree that an image's metadata describes: names, attributes, and where content is.

Everything here is by inode number, the root being 0, and is decoded when it is asked for; what is
asked for most (a directory with its entries' attributes) is decoded with few operations each.

Up to format 2.2 each name has attributes of its own, and names share an inode number as soon as
their content is equal. There the entry's number stands for the inode's, so that every name keeps
its own times and owner.
"""

import errno
import stat
import threading
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache, partial
from typing import Final, NamedTuple

from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.frozen import number_reader
from fimd.dwarfs.metadata import Metadata

ROOT: Final = 0
HOLE: Final = -1
LARGE_HOLE: Final = 0xFFFF_FFFF
_NO_NAMES: Final = (b"", b".", b"..")
_MAX_SIZE: Final = (1 << 63) - 1
_FEW_CHUNKS: Final = 8  # are counted again whenever a file's size is asked for
_MANY_CHUNKS: Final = 1024  # and more are of so many bytes each on average: mkdwarfs looks for
_LEAST_AVERAGE: Final = 16  # repetitions that are longer, and each byte would take a µs to read
_REMEMBERED: Final = 1024  # entries
_MOST_KNOWN: Final = 4096  # combinations of mode, owner and group; trees have some dozens
_SECOND: Final = 1_000_000_000
_MAX_TIME: Final = (1 << 63) - 1  # what the kernel's interfaces hold: the year 2262


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


# tuple's own constructor is twice as fast as the one with names
_new_attributes: Callable[[tuple[int, ...]], Attributes] = partial(tuple.__new__, Attributes)


class Extent(NamedTuple):
    """A piece of a file: `size` bytes at `offset` of the block, or of nothing where it is HOLE."""

    block: int
    offset: int
    size: int


class Tree:
    """Reads one image's tree. Safe in threads: nothing changes but what is cached whole."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        inodes, entries = metadata.inodes, metadata.entries
        self._inodes = inodes.records().reader
        self._entries = entries.records().reader
        self._extent = _extent_reader(metadata)
        # each field as the shift and the mask that take it out of its record
        self._mode, self._owner, self._group = (inodes.field(number) for number in (2, 4, 5))
        # the bits of the three, and what they have been found to mean
        self._identity = sum(m << s for s, m in (self._mode, self._owner, self._group))
        self._known: dict[int, tuple[int, int, int]] = {}
        self._known_sizes: dict[tuple[int, int], tuple[int, int]] = {}
        self._counted = 0  # chunks of the files whose sizes are known
        self._counting = threading.Lock()
        self._atime, self._mtime, self._ctime = (inodes.field(number, 64) for number in (6, 7, 8))
        self._atime_part, self._mtime_part, self._ctime_part = (
            inodes.field(number, 64) for number in (10, 11, 12)
        )
        self._links = inodes.field(14)
        self._time_unit = metadata.time_resolution * _SECOND
        self._first_time = self._time_unit * metadata.timestamp_base
        self._first_file, self._first_device = metadata.first_file, metadata.first_device
        self._chunk_count = len(metadata.chunks)
        self._by_name = metadata.has_entry_table
        self._entry_name = entries.field(1)
        self._entry_inode = entries.field(3 if self._by_name else 2)

    @cached_property
    def _chunk_table(self) -> Callable[[int], int]:
        return number_reader(self.metadata.chunk_table)

    @cached_property
    def _first_entries(self) -> Callable[[int], int]:
        return number_reader(self.metadata.first_entries)

    def lookup(self, directory: int, name: bytes) -> int | None:
        """The inode of a name in a directory, None where there is none."""
        low, high = self._entry_range(directory)
        entry = self._entry
        while low < high:
            middle = (low + high) // 2
            found, record = entry(middle)
            if found == name:
                return middle if self._by_name else self._entry_target(record)
            if found < name:
                low = middle + 1
            else:
                high = middle
        return None

    @cached_property
    def _entry(self) -> Callable[[int], tuple[bytes, int]]:
        """An entry's name and record; those in the middle of a directory are asked for often."""
        shift, mask = self._entry_name
        names, entries = self.metadata.names.reader, self._entries

        def entry(index: int) -> tuple[bytes, int]:
            record = entries(index)
            return names(record >> shift & mask), record

        return lru_cache(_REMEMBERED)(entry)

    def readdir(self, directory: int, start: int = 0) -> Iterator[tuple[bytes, int]]:
        """Name and inode of each entry from number `start` on, in the order of the names' bytes."""
        low, high = self._entry_range(directory)
        name_shift, name_mask = self._entry_name
        inode_shift, inode_mask = self._entry_inode
        names, entries, by_name = self.metadata.names.reader, self._entries, self._by_name
        inode_count = self.metadata.inode_count
        last = b""
        for index in range(low + start, high):
            record = entries(index)
            name = names(record >> name_shift & name_mask)
            if name <= last:  # so that a directory has no more entries than there are names
                raise DamagedError(f"directory {directory} is not sorted by name")
            if name in _NO_NAMES or b"/" in name or b"\0" in name:
                raise DamagedError(f"a directory holds {name!r}, which is no file's name")
            last = name
            inode = record >> inode_shift & inode_mask
            if inode >= inode_count:
                raise DamagedError(f"an entry has inode {inode} of {inode_count}")
            yield name, (index if by_name else inode)

    def attributes(self, inode: int) -> Attributes:
        """What stat(2) would say. Raises DamagedError where the tables contradict each other."""
        meta = self.metadata
        number = self._number(inode)
        record = self._inodes(inode)
        key = record & self._identity
        mode, uid, gid = self._known.get(key) or self._identify(key)
        nlink = 1
        rdev = 0
        if self._first_file <= number < self._first_device:
            size, allocated = self._file_sizes(number)
            if meta.has_link_counts:
                shift, mask = self._links
                nlink = (record >> shift & mask) + 1
            else:
                nlink = meta.link_counts[number]
        elif number < meta.first_link:
            low, high = self._entry_range(inode)
            size = allocated = high - low
        elif number < self._first_file:
            target = meta.symlink_table[number - meta.first_link]
            size = allocated = meta.symlinks.length(target)
        else:
            size = allocated = 0
            if number < meta.first_other and meta.has_devices:
                rdev = meta.devices[number - meta.first_device]
        mtime = self._time(record, self._mtime, self._mtime_part)
        if meta.mtime_only:
            atime = ctime = mtime
        else:
            atime = self._time(record, self._atime, self._atime_part)
            ctime = self._time(record, self._ctime, self._ctime_part)
        return _new_attributes(
            (inode, mode, nlink, uid, gid, rdev, size, allocated, atime, mtime, ctime)
        )

    def _identify(self, record: int) -> tuple[int, int, int]:
        """Mode, owner and group of an inode: few differ, so each is remembered."""
        meta = self.metadata
        number, uid, gid = (
            record >> shift & mask for shift, mask in (self._mode, self._owner, self._group)
        )
        try:
            mode = meta.modes[number]
            if meta.uids:  # without the table the numbers are the ids themselves
                uid = meta.uids[uid]
            if meta.gids:
                gid = meta.gids[gid]
        except IndexError:
            raise DamagedError("an inode has an owner, group or mode out of range") from None
        if len(self._known) == _MOST_KNOWN:
            self._known.clear()
        self._known[record] = mode, uid, gid
        return mode, uid, gid

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

    def sizes(self, inode: int) -> tuple[int, int]:
        """A file's size, and how many of its bytes are not in holes."""
        return self._file_sizes(self._file_number(inode))

    def _file_sizes(self, number: int) -> tuple[int, int]:
        first, last = self._chunk_range(number)
        if last - first == 1:  # most files
            block, _, size = self._extent(first)
            return size, (size if block != HOLE else 0)
        if last - first <= _FEW_CHUNKS:
            return self.sizes_of_chunks(first, last)
        return self._known_sizes.get((first, last)) or self._count_chunks(first, last)

    def _count_chunks(self, first: int, last: int) -> tuple[int, int]:
        """The same, once for each range of chunks: of one copy of a file, whoever it is shared by.

        Different ranges have no chunk in common, so all of them have no more than there are.
        """
        sizes = self.sizes_of_chunks(first, last)
        if last - first > _MANY_CHUNKS and sizes[0] < _LEAST_AVERAGE * (last - first):
            raise DamagedError(f"a file of {sizes[0]} bytes has {last - first} chunks")
        with self._counting:
            if (first, last) not in self._known_sizes:
                self._counted += last - first
                if self._counted > self._chunk_count:
                    raise DamagedError("the chunk table is not sorted: files share chunks")
                self._known_sizes[first, last] = sizes
        return sizes

    def sizes_of_chunks(self, first: int, last: int) -> tuple[int, int]:
        """The same of what chunks `first` to `last` (not included) hold."""
        size = allocated = 0
        for index in range(first, last):
            block, _, length = self._extent(index)
            size += length
            if block != HOLE:
                allocated += length
        if size > _MAX_SIZE:
            raise DamagedError(f"a file has {size} bytes")
        return size, allocated

    def extents(self, inode: int) -> list[Extent]:
        """The pieces of a file, in order; none is empty."""
        extents = map(self._extent, range(*self._chunk_range(self._file_number(inode))))
        return [Extent(*extent) for extent in extents if extent[2]]

    def content(self, inode: int) -> tuple[int, int]:
        """What tells a file's content from others': its first chunk, and the one after its last."""
        return self._chunk_range(self._file_number(inode))

    def _entry_target(self, record: int) -> int:
        inode = record >> self._entry_inode[0] & self._entry_inode[1]
        if inode >= self.metadata.inode_count:
            raise DamagedError(f"an entry has inode {inode} of {self.metadata.inode_count}")
        return inode

    def _number(self, inode: int) -> int:
        """The number by which the tables of the inode's type know it."""
        if not 0 <= inode < self.metadata.node_count:
            raise FileNotFoundError(errno.ENOENT, f"no inode {inode}")
        return self._entry_target(self._entries(inode)) if self._by_name else inode

    def _entry_range(self, directory: int) -> tuple[int, int]:
        meta = self.metadata
        number = self._number(directory)
        if number >= meta.first_link:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory")
        low, high = self._first_entries(number), self._first_entries(number + 1)
        if not low <= high <= meta.entry_count:
            raise DamagedError(f"directory {directory} has entries {low} to {high}")
        return low, high

    def _file_number(self, inode: int) -> int:
        number = self._number(inode)
        if not self._first_file <= number < self._first_device:
            raise OSError(
                errno.EISDIR if self.is_directory(inode) else errno.EINVAL, "not a regular file"
            )
        return number

    def _chunk_range(self, number: int) -> tuple[int, int]:
        """The chunks of the file of a number, from the first to before the last."""
        meta = self.metadata
        number -= self._first_file
        unique = meta.unique_files
        if number >= unique:
            number = unique + meta.shared_files[number - unique]
        try:
            first, last = self._chunk_table(number), self._chunk_table(number + 1)
        except IndexError:
            raise DamagedError(f"file object {number} is not in the chunk table") from None
        if not first <= last <= self._chunk_count:
            raise DamagedError(f"file object {number} has chunks {first} to {last}")
        return first, last

    def _time(self, record: int, whole: tuple[int, int], part: tuple[int, int]) -> int:
        """A time in nanoseconds, from the fields for seconds and for what is below them."""
        shift, mask = whole
        time = self._first_time + self._time_unit * (record >> shift & mask)
        if self.metadata.nanosecond_multiplier:
            shift, mask = part
            below = self.metadata.nanosecond_multiplier * (record >> shift & mask)
            if below >= _SECOND:
                raise DamagedError(f"a time has {below} nanoseconds beside its seconds")
            time += below
        if time >= _MAX_TIME:
            raise DamagedError(f"a time is {time // _SECOND} seconds after 1970")
        return time


def _extent_reader(metadata: Metadata) -> Callable[[int], tuple[int, int, int]]:
    """What gives a chunk as block (or HOLE), offset and size; a closure, for speed."""
    (block_shift, block_mask), (offset_shift, offset_mask), (size_shift, size_mask) = (
        metadata.chunks.field(number) for number in (1, 2, 3)
    )
    chunks = metadata.chunks.records().reader
    block_size, hole_block, large_holes = (
        metadata.block_size,
        metadata.hole_block,
        metadata.large_holes,
    )

    def read(index: int) -> tuple[int, int, int]:
        record = chunks(index)
        block = record >> block_shift & block_mask
        offset = record >> offset_shift & offset_mask
        size = record >> size_shift & size_mask
        if block == hole_block:
            if offset == LARGE_HOLE:
                return HOLE, 0, large_holes[size]
            return HOLE, 0, size * block_size + offset
        if offset + size > block_size:
            raise DamagedError(f"chunk {index} leaves its block: {size} bytes at {offset}")
        return block, offset, size

    return read


def kind(mode: int) -> str:
    """The letter of a file type: d f l c b p s."""
    return "f" if stat.S_ISREG(mode) else stat.filemode(mode)[0]
