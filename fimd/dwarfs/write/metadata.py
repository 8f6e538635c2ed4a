"""The metadata of an image: from a tree and where its contents lie to the two sections' payloads.

Source: section "The metadata struct" of the format's description, whose field ids are used here.
"""

import math
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fimd.dwarfs.write import fsst
from fimd.dwarfs.write.entries import Entry
from fimd.dwarfs.write.frozen import (
    Column,
    Numbers,
    Records,
    Some,
    StringSet,
    Struct,
    column,
    encode,
    packed_size,
)
from fimd.dwarfs.write.tree import Tree, rank_inodes

_SECOND: Final = 10**9
_LATEST_TIME: Final = (1 << 33) * _SECOND - 1
_WRITER: Final = b"fimd.dwarfs"
_LONGEST_STORED: Final = 512  # bytes of a name; readers refuse more
_LARGE_HOLE: Final = 0xFFFFFFFF  # the chunk offset that says: the size is an index


@dataclass(frozen=True, slots=True)
class Contents:
    """What the regular files hold, and where it was put.

    Attributes:
        of_inode: for each inode of the tree the number of its content, -1 where it is no file.
        first_chunk: for each content its first chunk.
        chunk_counts: for each content how many chunks it has.
        blocks: for each chunk the block that holds it; `hole_block` for a hole.
        offsets: for each chunk where it begins in its block.
        sizes: for each chunk its size, that of a hole too.
        block_size: the most bytes that a block may hold.
        block_count: how many blocks there are.
        has_holes: whether the image uses the feature, which releases before 0.14 refuse.
    """

    of_inode: list[int]
    first_chunk: npt.NDArray[np.int64]
    chunk_counts: npt.NDArray[np.int64]
    blocks: Column
    offsets: Column
    sizes: Column
    block_size: int
    block_count: int
    has_holes: bool = False

    @property
    def hole_block(self) -> int:
        """The number that stands for a hole where a block's is expected."""
        return self.block_count


@dataclass(frozen=True, slots=True)
class Packing:
    """How densely the metadata is stored; all of it is the format's choice, not its content."""

    tables: bool  # differences instead of sums, which a reader adds up when it opens the image
    names: bool  # FSST
    align: int  # bits that a field of a list's items is rounded up to


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller may choose about the metadata."""

    subsecond: bool = False
    created: int | None = None  # seconds since 1970


def payloads(
    tree: Tree, contents: Contents, options: Options, compressed_size: Callable[[bytes], int] | None
) -> tuple[bytes, bytes]:
    """The payloads of METADATA_V2_SCHEMA and METADATA_V2.

    `compressed_size` tells how small the level's compression makes a payload, None where it has
    none: what packs best is not what compresses best.
    """
    tables = _Tables(tree, contents, options)
    if compressed_size is None:
        return tables.encode(Packing(tables=True, names=True, align=1))
    candidates = [
        tables.encode(Packing(packed, names=False, align=align))
        for packed in (True, False)
        for align in (1, 8)
    ]
    return min(candidates, key=lambda pair: compressed_size(pair[1]))


def storable_time(entry: Entry) -> int:
    """The entry's time, or the nearest that every reader takes: from 1970 to 2242."""
    return min(max(0, entry.mtime_ns), _LATEST_TIME)


class _Tables:
    """The tables of one tree, before it is decided how densely they are stored."""

    def __init__(self, tree: Tree, contents: Contents, options: Options) -> None:
        self._tree = tree
        self._contents = contents
        self._options = options
        of_inode = np.array(contents.of_inode, np.int64)
        content_count = len(contents.first_chunk)
        uses = np.bincount(of_inode[of_inode >= 0], minlength=content_count)
        order = rank_inodes(tree, contents.of_inode, uses > 1)
        self._numbers = np.empty_like(order)  # of the tree's inodes in the image
        self._numbers[order] = np.arange(len(order))
        self._inodes = [tree.entries[tree.firsts[inode]] for inode in order]
        self._links = np.bincount(tree.inodes, minlength=len(order))[order]
        self._content_of = of_inode[order]
        files = self._content_of[self._content_of >= 0]
        is_shared = uses[files] > 1
        shared, self._shared_uses = np.unique(files[is_shared], return_counts=True)
        self._objects = np.concatenate([files[~is_shared], shared])  # contents as chunk_table has
        self._directories = np.array([entry.is_directory for entry in tree.entries])
        # dir_entries: the root, then the entries of each directory in the directories' order
        children = np.argsort(tree.parents[1:], kind="stable") + 1
        self._listed = np.concatenate([[0], children])
        self._targets, self._target_index = _distinct(
            [entry.target for entry in self._inodes if stat.S_ISLNK(entry.mode)]
        )
        names = [tree.entries[place].path.rpartition(b"/")[2] for place in children]
        self._names, self._name_index = _distinct(names)

    def encode(self, packing: Packing) -> tuple[bytes, bytes]:
        """The two payloads with the tables stored like this."""
        devices = [
            entry.rdev
            for entry in self._inodes
            if stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode)
        ]
        modes = np.array([entry.mode for entry in self._inodes], np.uint64)
        uids = np.array([entry.uid for entry in self._inodes], np.uint64)
        gids = np.array([entry.gid for entry in self._inodes], np.uint64)
        base, times, resolution = self._times()
        mode_list, mode_index = np.unique(modes, return_inverse=True)
        uid_list, uid_index = np.unique(uids, return_inverse=True)
        gid_list, gid_index = np.unique(gids, return_inverse=True)
        inodes = {2: mode_index, 4: uid_index, 5: gid_index, **times, 14: self._links - 1}
        chunks, holes = self._chunks()
        chunk_table, packed_chunk_table = self._chunk_table(packing)
        directories, packed_directories = self._directory_table(packing)
        shared, packed_shared = self._shared_table(packing)
        subsecond = {} if resolution is None else {6: Some(resolution)}
        options = {
            1: True,  # only the modification time is kept
            3: packed_chunk_table,
            4: packed_directories,
            5: packed_shared,
            **subsecond,
            8: True,  # inodes have their link count
        }
        created = self._options.created
        root = {
            1: chunks,
            2: directories,
            3: _records(inodes),
            4: chunk_table,
            6: Numbers(self._target_index),
            7: Numbers(uid_list),
            8: Numbers(gid_list),
            9: Numbers(mode_list),
            12: base,
            15: self._contents.block_size,
            **self._totals(),
            17: Some(Numbers(column(devices))),
            18: Some(Struct(options)),
            19: Some(self._dir_entries()),
            20: Some(shared),
            22: Some(_WRITER),
            **({} if created is None else {23: Some(created)}),
            24: Some(_string_table(self._names, packing)),
            25: Some(_string_table(self._targets, packing)),
            26: Some(ord("/")),
            27: Some(StringSet(frozenset({b"sparsefiles"} if holes else ()))),
            **holes,
        }
        return encode(Struct(dict(sorted(root.items()))), align=packing.align)

    def _times(self) -> tuple[int, dict[int, Any], int | None]:
        """The base in seconds, the inodes' columns, and the subsecond unit in nanoseconds."""
        times = np.array([storable_time(entry) for entry in self._inodes], np.int64)
        seconds, nanoseconds = np.divmod(times, _SECOND)
        base = int(seconds.min())
        columns = {7: seconds - base}
        unit = math.gcd(_SECOND, *np.unique(nanoseconds).tolist())
        if not self._options.subsecond or unit == _SECOND:
            return base, columns, None
        return base, {**columns, 11: nanoseconds // unit}, unit

    def _totals(self) -> dict[int, Any]:
        """What statfs shows: sizes of files once an inode, and of links' targets."""
        sizes = [entry.size + len(entry.target) for entry in self._inodes]
        total = sum(sizes)
        extra = sum(
            entry.size * (links - 1)
            for entry, links in zip(self._inodes, self._links.tolist(), strict=True)
        )
        fields: dict[int, Any] = {16: total}
        if extra:
            fields[21] = Some(extra)
        if self._contents.has_holes:
            contents = self._contents
            holes = np.where(contents.blocks == contents.hole_block, contents.sizes, 0)
            sums = np.concatenate([[0], np.cumsum(holes)]).astype(np.int64)
            ends = contents.first_chunk + contents.chunk_counts
            of_content = sums[ends] - sums[contents.first_chunk]
            of_file = of_content[self._content_of[self._content_of >= 0]]
            fields[36] = Some(total - int(of_file.sum()))
        return fields

    def _chunks(self) -> tuple[Records, dict[int, Any]]:
        """The chunks in the contents' order, and the fields that holes need."""
        contents = self._contents
        firsts = contents.first_chunk[self._objects]
        counts = contents.chunk_counts[self._objects]
        ends = np.cumsum(counts)
        chosen = np.repeat(firsts - (ends - counts), counts) + np.arange(counts.sum())
        blocks = contents.blocks[chosen]
        offsets = contents.offsets[chosen]
        sizes = contents.sizes[chosen]
        if not contents.has_holes:
            return _records({1: blocks, 2: offsets, 3: sizes}), {}
        is_hole = blocks == contents.hole_block
        largest = int(sizes[~is_hole].max(initial=0))
        inline_limit = contents.block_size << largest.bit_length()
        is_large = is_hole & (sizes >= inline_limit)
        large, large_index = np.unique(sizes[is_large], return_inverse=True)
        is_inline = is_hole & ~is_large
        offsets[is_inline] = sizes[is_inline] % contents.block_size
        sizes[is_inline] //= np.uint64(contents.block_size)
        offsets[is_large] = _LARGE_HOLE
        sizes[is_large] = large_index
        fields = {34: Some(contents.hole_block), 35: Some(Numbers(large))}
        return _records({1: blocks, 2: offsets, 3: sizes}), fields

    def _chunk_table(self, packing: Packing) -> tuple[Numbers, bool]:
        counts = self._contents.chunk_counts[self._objects]
        deltas = np.concatenate([[0], counts]).astype(np.uint64)
        sums = np.cumsum(deltas, dtype=np.uint64)
        return _packed(deltas, sums, packing)

    def _directory_table(self, packing: Packing) -> tuple[Records, bool]:
        places = np.flatnonzero(self._directories)
        counts = np.bincount(self._tree.parents[1:], minlength=len(self._tree.entries))[places]
        deltas = np.concatenate([[1], counts])
        if packing.tables:
            return _records({2: deltas}), True
        listed_at = np.empty_like(self._listed)
        listed_at[self._listed] = np.arange(len(self._listed))
        own = np.append(listed_at[places], 0)
        parent = np.append(listed_at[self._tree.parents[places]], 0)
        return _records({1: parent, 2: np.cumsum(deltas), 3: own}), False

    def _shared_table(self, packing: Packing) -> tuple[Numbers, bool]:
        uses = self._shared_uses
        repeated = np.repeat(np.arange(len(uses)), uses).astype(np.uint64)
        return _packed((uses - 2).astype(np.uint64), repeated, packing)

    def _dir_entries(self) -> Records:
        names = np.concatenate([[0], self._name_index])
        return _records({1: names, 2: self._numbers[self._tree.inodes[self._listed]]})


def _records(columns: dict[int, npt.NDArray[Any]]) -> Records:
    return Records({key: values.astype(np.uint64) for key, values in columns.items()})


def _packed(packed: Column, plain: Column, packing: Packing) -> tuple[Numbers, bool]:
    if packing.tables and packed_size(packed) < packed_size(plain):
        return Numbers(packed), True
    return Numbers(plain), False


def _distinct(strings: list[bytes]) -> tuple[list[bytes], Column]:
    """Each string once, in the order of their first use, and for each string its number.

    That order keeps a directory's sorted names together, and the numbers ascending.
    """
    numbers: dict[bytes, int] = {}
    index = [numbers.setdefault(string, len(numbers)) for string in strings]
    return list(numbers), column(index)


def _string_table(strings: list[bytes], packing: Packing) -> Struct:
    fields: dict[int, Any] = {}
    if packing.names:
        encoded = fsst.encode(strings)
        saved = sum(map(len, strings)) - sum(map(len, encoded.strings)) - len(encoded.table)
        longest = max(map(len, encoded.strings), default=0)
        if saved > 0 and longest <= _LONGEST_STORED:
            strings = encoded.strings
            fields[2] = Some(encoded.table)
    lengths = column(map(len, strings))
    bounds = np.concatenate([np.zeros(1, np.uint64), np.cumsum(lengths, dtype=np.uint64)])
    index, packed = _packed(lengths, bounds, packing)
    return Struct({1: b"".join(strings), **fields, 3: index, 4: packed})
