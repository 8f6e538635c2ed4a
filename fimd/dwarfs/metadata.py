"""The metadata struct of an image: its tables where they lie, and what opening must check.

Source: thrift/metadata.thrift of mhx/dwarfs, formats 2.0 to 2.6. Numbers of fields are the ones
there. The tables are read in place; the packed ones are unpacked when they are first needed.
"""

import stat
from array import array
from bisect import bisect_left
from functools import cached_property
from itertools import accumulate, chain, repeat
from typing import Final

from fimd.dwarfs import bounds
from fimd.dwarfs.errors import DamagedError, UnsupportedError
from fimd.dwarfs.frozen import Column, Frozen, Items, Numbers, Schema, View
from fimd.dwarfs.strings import MAX_NAME, MAX_TARGET, StringTable

KNOWN_FEATURES: Final = frozenset({b"sparsefiles"})
MAX_BLOCK_SIZE: Final = 1 << 30

# st_mode's file type -> rank: inodes are numbered by rank
RANKS: Final = {
    stat.S_IFDIR: 0,
    stat.S_IFLNK: 1,
    stat.S_IFREG: 2,
    stat.S_IFBLK: 3,
    stat.S_IFCHR: 3,
    stat.S_IFIFO: 4,
    stat.S_IFSOCK: 4,
}


class Metadata:
    """The decoded root of the metadata of one image.

    Attributes:
        block_size: bytes of the largest block, a power of two.
        inode_count, entry_count: how many inodes, and names for them, there are.
        first_link, first_file, first_device, first_other: the first inode of each rank.
        modes, uids, gids: the values that inodes refer to.
        has_entry_table: True for formats 2.0 to 2.2, where attributes belong to names.
        node_count: how many numbers `Tree` takes for inodes.
        inodes: list<inode_data>, by inode; by entry where has_entry_table.
        entries: list<dir_entry>; the same as inodes where has_entry_table.
        chunks, names, symlinks: the tables of these names.
    """

    def __init__(self, data: bytes, schema: Schema, stored: int) -> None:
        """`stored` are the bytes of the section that `data` were unpacked from."""
        self.frozen = Frozen(data, schema, bounds.items(stored))
        self._most_chunks = bounds.chunks(stored)
        root = self.root = self.frozen.root
        self._read_features()
        self.block_size = root.integer(15, 32)
        if not 0 < self.block_size <= MAX_BLOCK_SIZE or self.block_size & self.block_size - 1:
            raise DamagedError(f"invalid block size: {self.block_size}")
        self.timestamp_base = root.integer(12)
        self._read_options(root.optional_struct(18))
        self.hole_block = root.optional_integer(34, 32)
        self.large_holes = self._optional_items(35).numbers(64)
        self.path_separator = root.optional_integer(26, 32) or ord("/")

        self.directories = root.items(2)
        self.inodes = root.items(3)
        self.chunks = root.items(1)
        self._chunk_table = root.items(4).numbers()
        self.entry_table = root.items(5).numbers()
        self.symlink_table = root.items(6).numbers()
        self.has_devices = root.struct(17).flag(1)
        self.devices = self._optional_items(17).numbers(64)
        self.has_shared_files = root.struct(20).flag(1)
        self.shared_files_table = self._optional_items(20).numbers()
        self.has_entry_table = not root.struct(19).flag(1)
        self.entries = self.inodes if self.has_entry_table else self._optional_items(19)
        self.entry_count = len(self.entries)
        self.inode_count = len(self.entry_table if self.has_entry_table else self.inodes)
        self.node_count = self.entry_count if self.has_entry_table else self.inode_count
        self.names = StringTable(self.frozen, root.optional_struct(24), root.items(10), MAX_NAME)
        self.symlinks = StringTable(
            self.frozen, root.optional_struct(25), root.items(11), MAX_TARGET
        )
        self._check_sizes()
        self.modes, self.uids, self.gids = (
            root.items(field).numbers().unpack() for field in (9, 7, 8)
        )
        self._find_ranks()
        self._check_counts()

    def _optional_items(self, field_id: int) -> Items:
        # an unset optional's value has no width, so it reads as an empty list
        holder = self.root.optional(field_id)
        return self.root.items(0) if holder is None else holder.items(2)

    def _read_features(self) -> None:
        self.features = frozenset(self._optional_items(27).strings())
        for feature in self.features:
            if feature not in KNOWN_FEATURES:
                text = feature.decode("ascii", "backslashreplace")
                raise UnsupportedError(f"the image needs the feature {text!r}, which is not known")

    def _read_options(self, options: View | None) -> None:
        self.has_options = options is not None
        options = options or self.root.struct(0)
        self.mtime_only = options.flag(1)
        self.time_resolution = options.optional_integer(2, 32) or 1
        self.packed_chunk_table = options.flag(3)
        self.packed_directories = options.flag(4)
        self.packed_shared_files = options.flag(5)
        self.nanosecond_multiplier = options.optional_integer(6, 32) or 0
        self.has_link_counts = options.flag(8)

    def rank_of_record(self, record: int) -> int:
        """The rank that item `record` of `inodes` has by its file type."""
        mode_index = self._mode_indices[record]
        if mode_index >= len(self.modes):
            raise DamagedError(f"inode data {record} has mode {mode_index} of {len(self.modes)}")
        rank = RANKS.get(stat.S_IFMT(self.modes[mode_index]))
        if rank is None:
            raise DamagedError(f"inode data {record} has an unknown file type")
        return rank

    def rank(self, inode: int) -> int:
        """The rank of an inode."""
        return self.rank_of_record(self.entry_table[inode] if self.has_entry_table else inode)

    def _find_ranks(self) -> None:
        self._mode_indices = self.inodes.column(2)
        inodes = range(self.inode_count)
        self.first_link, self.first_file, self.first_device, self.first_other = (
            bisect_left(inodes, wanted, key=self.rank) for wanted in (1, 2, 3, 4)
        )

    def _check_sizes(self) -> None:
        """What no table exceeds in any image, whatever its items are: nothing is unpacked before.

        Each inode has a name, each value and each string a user, and each entry differs from all
        others, which takes bits.
        """
        if self.entry_count > 1 and not self.entries.layout.stride:
            raise DamagedError(f"{self.entry_count} directory entries that do not differ")
        if len(self.chunks) > self._most_chunks:
            raise DamagedError(f"{len(self.chunks)} chunks in metadata of this size")
        for table, count, users, most in (
            ("inodes", self.inode_count, "directory entries", self.entry_count),
            ("modes", len(self.root.items(9)), "inodes", len(self.inodes)),
            ("uids", len(self.root.items(7)), "inodes", len(self.inodes)),
            ("gids", len(self.root.items(8)), "inodes", len(self.inodes)),
            ("names", self.names.count, "directory entries", self.entry_count),
            ("link targets", self.symlinks.count, "links", len(self.symlink_table)),
            ("sizes of holes", len(self.large_holes), "chunks", len(self.chunks)),
            ("file objects", len(self._chunk_table) - 1, "inodes", self.inode_count),
            ("shared files", len(self.shared_files_table), "inodes", self.inode_count),
        ):
            if count > most:
                raise DamagedError(f"metadata inconsistency: {count} {table} for {most} {users}")

    def _check_counts(self) -> None:
        """What the reference checks whenever it opens an image."""
        directories = len(self.directories) - 1
        if directories < 1 or directories != self.first_link:
            raise DamagedError(
                f"metadata inconsistency: the number of directories ({directories})"
                f" does not match the first inode after them ({self.first_link})"
            )
        links = self.first_file - self.first_link
        if len(self.symlink_table) != links:
            raise DamagedError(
                f"metadata inconsistency: the number of links ({len(self.symlink_table)})"
                f" does not match their inodes ({links})"
            )
        files = self.first_device - self.first_file
        if not self.has_shared_files and len(self._chunk_table) - 1 != files:
            raise DamagedError(
                f"metadata inconsistency: the number of files ({len(self._chunk_table) - 1})"
                f" does not match their inodes ({files})"
            )
        devices = self.first_other - self.first_device
        if self.has_devices and len(self.devices) != devices:
            raise DamagedError(
                f"metadata inconsistency: the number of devices ({len(self.devices)})"
                f" does not match their inodes ({devices})"
            )

    @cached_property
    def chunk_table(self) -> Numbers:
        """The first chunk of each file object, and the last one's end."""
        if self.packed_chunk_table:
            return _running_sums(self._chunk_table)
        return self._chunk_table

    @cached_property
    def first_entries(self) -> Numbers:
        """The first entry of each directory, and the last one's end."""
        column = self.directories.column(2)
        return _running_sums(column) if self.packed_directories else column

    @cached_property
    def shared_files(self) -> Numbers:
        """For each inode of a file that shares its content, the shared object's number."""
        table = self.shared_files_table
        if not self.packed_shared_files:
            return table
        repetitions = table.unpack()
        if sum(repetitions) + 2 * len(table) > self.inode_count:
            raise DamagedError("there are more shared files than inodes")
        numbers = (repeat(number, 2 + more) for number, more in enumerate(repetitions))
        return array("I", chain.from_iterable(numbers))

    @cached_property
    def unique_files(self) -> int:
        """How many file inodes have their content to themselves."""
        unique = self.first_device - self.first_file - len(self.shared_files)
        if unique < 0:
            raise DamagedError("there are more shared files than files")
        return unique

    @cached_property
    def link_counts(self) -> Numbers:
        """How many names each inode has, for images that do not say."""
        counts = array("I", bytes(4 * self.inode_count))
        numbers = self.entries.column(3 if self.has_entry_table else 2)
        try:
            for inode in numbers.unpack():
                counts[inode] += 1
        except IndexError:
            raise DamagedError("a directory entry's inode is out of range") from None
        return counts


def _running_sums(column: Column) -> "array[int]":
    """What a packed table stands for."""
    return array("Q", accumulate(column.unpack()))
