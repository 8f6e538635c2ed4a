"""Whether the metadata's tables agree with each other: the reference's full consistency check.

Opening an image checks only what keeps the reader itself from going wrong, and each access its own
numbers. Here every table is gone through once, in the order of section 8 of the format's facts.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise, starmap
from operator import le, lt

from fimd.dwarfs.errors import DamagedError
from fimd.dwarfs.frozen import unpacked
from fimd.dwarfs.metadata import Metadata
from fimd.dwarfs.strings import MAX_NAME, MAX_TARGET, StringTable
from fimd.dwarfs.tree import LARGE_HOLE, Tree


def check(tree: Tree) -> None:
    """Raise DamagedError at the first contradiction."""
    for part in (
        _check_sizes,
        _check_indices,
        _check_directories,
        _check_chunk_table,
        _check_strings,
        _check_chunks,
        _check_ranks,
        _check_shared_files,
        _check_size_cache,
    ):
        part(tree.metadata)
    _check_tree(tree)


def first_fault(tree: Tree) -> DamagedError | None:
    """The first contradiction, None where there is none."""
    try:
        check(tree)
    except DamagedError as error:
        return error
    return None


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise DamagedError(fault)


def _is_sorted(numbers: Sequence[int]) -> bool:
    return all(starmap(le, pairwise(numbers)))


def _largest(numbers: Sequence[int]) -> int:
    return max(numbers, default=-1)


def _check_sizes(meta: Metadata) -> None:
    counts = {
        "inodes": len(meta.inodes),
        "directories": len(meta.directories),
        "chunk_table": len(meta.root.items(4)),
        "entries": meta.entry_count,
        "modes": len(meta.modes),
    }
    for table, count in counts.items():
        _require(count > 0, f"empty {table} table")
    inodes = len(meta.inodes)
    for table, count in (
        ("modes", len(meta.modes)),
        ("uids", len(meta.uids)),
        ("gids", len(meta.gids)),
    ):
        _require(count <= inodes, f"{table}: {count} values for {inodes} inodes")
    if not meta.names.is_compact:
        _require(meta.names.count <= meta.entry_count, "more names than directory entries")
    _require(meta.inode_count <= meta.entry_count, "more inodes than directory entries")
    _require(len(meta.directories) <= inodes + 1, "more directories than inodes")
    _require(len(meta.root.items(4)) <= inodes + 1, "more file objects than inodes")


def _check_indices(meta: Metadata) -> None:
    inodes = meta.inodes
    limits = (("mode_index", 2, meta.modes), ("owner_index", 4, meta.uids))
    for name, field, values in (*limits, ("group_index", 5, meta.gids)):
        if values:
            largest = _largest(inodes.column(field).unpack())
            _require(largest < len(values), f"{name} out of range: {largest} of {len(values)}")
    largest = _largest(_entry_inodes(meta))
    _require(largest < meta.inode_count, f"inode number out of range: {largest}")
    if meta.has_entry_table:
        largest = _largest(meta.entry_table.unpack())
        _require(largest < len(inodes), f"entry_table value out of range: {largest}")
    largest = _largest(_name_indices(meta))
    _require(
        largest <= 0 or largest < meta.names.count,
        f"name_index out of range: {largest} of {meta.names.count}",
    )


def _entry_inodes(meta: Metadata) -> "array[int]":
    return meta.entries.column(3 if meta.has_entry_table else 2).unpack()


def _name_indices(meta: Metadata) -> "array[int]":
    return meta.entries.column(1).unpack()


def _check_directories(meta: Metadata) -> None:
    parents, firsts, selves = (meta.directories.column(n).unpack() for n in (1, 2, 3))
    entries = meta.entry_count
    if meta.packed_directories:
        _require(not any(parents) and not any(selves), "packed directories name their parents")
        _require(sum(firsts) == entries, "packed directories do not add up to the entries")
        return
    _require(_is_sorted(firsts), "first_entry values not sorted")
    _require(_largest(firsts) <= entries, "first_entry out of range")
    _require(_largest(selves) <= entries, "self_entry out of range")
    limit = meta.inode_count if meta.has_entry_table else entries
    _require(_largest(parents) < limit, "parent_entry out of range")
    _require(not parents[0] and not parents[-1], "the root has a parent")
    _require(not selves[0], "the root's self_entry is not the root")
    if not meta.has_entry_table:
        # the last is no directory, only where the entries of the one before it end
        _require(
            all(first != parent for first, parent in zip(firsts[:-1], parents, strict=False)),
            "first_entry == parent_entry",
        )
        if any(selves):  # releases before 0.11 do not know the field
            for parent, first, own in zip(parents[1:-1], firsts[1:-1], selves[1:-1], strict=True):
                _require(own not in (first, parent), "a directory's self_entry is another's")


def _check_chunk_table(meta: Metadata) -> None:
    table = meta.chunk_table
    numbers = unpacked(table)
    _require(_is_sorted(numbers), "chunk_table not sorted")
    _require(
        numbers[-1] == len(meta.chunks),
        f"chunk_table end value mismatch: {len(meta.chunks)} != {numbers[-1]}",
    )


def _check_strings(meta: Metadata) -> None:
    indices = _name_indices(meta)
    # the root has no name, and number 0 all the same
    used = _largest(indices) + 1 if len(indices) > 1 else 0
    _check_string_table("names", meta.names, used, MAX_NAME)
    used = _largest(meta.symlink_table.unpack()) + 1
    _check_string_table("symlinks", meta.symlinks, used, MAX_TARGET)


def _check_string_table(name: str, table: StringTable, used: int, longest: int) -> None:
    _require(
        table.count == used, f"unexpected number of strings in {name}: {table.count} != {used}"
    )
    lengths: Iterable[int]
    if table.is_compact:
        bounds = unpacked(table.bounds)
        _require(not bounds or bounds[0] == 0, f"the index of {name} does not start at 0")
        _require(_is_sorted(bounds), f"the index of {name} is not sorted")
        _require((bounds[-1] if bounds else 0) == table.size, f"unexpected data size in {name}")
        lengths = (end - start for start, end in pairwise(bounds))
    else:
        places = list(map(table.plain_range, range(table.count)))
        _require(
            all(start + size == following for (start, size), (following, _) in pairwise(places)),
            f"unexpected data size in {name}",
        )
        lengths = [size for _, size in places]
        _require(not lengths or bool(lengths[0] and lengths[-1]), f"an empty string in {name}")
    _require(max(lengths, default=0) <= longest, f"a string in {name} is too long")


def _check_chunks(meta: Metadata) -> None:
    has_feature = b"sparsefiles" in meta.features
    _require(
        has_feature == (meta.hole_block is not None),
        "sparsefiles feature and hole_block_index do not go together",
    )
    columns = [meta.chunks.column(field).unpack() for field in (1, 2, 3)]
    block_size = meta.block_size
    for block, offset, size in zip(*columns, strict=True):
        if block == meta.hole_block:
            if offset == LARGE_HOLE:
                _require(size < len(meta.large_holes), "large hole out of range")
        elif not (offset < block_size and offset + size <= block_size):
            raise DamagedError(f"a chunk leaves its block: {size} bytes at {offset}")


def _check_ranks(meta: Metadata) -> None:
    ranks = list(map(meta.rank, range(meta.inode_count)))
    _require(_is_sorted(ranks), "inodes are not in the order of their types")
    if meta.has_entry_table:
        # in these formats names have attributes of their own, with types of their own
        for entry, inode in enumerate(_entry_inodes(meta)):
            _require(
                meta.rank_of_record(entry) == ranks[inode],
                f"inode {inode} has names of different types",
            )


def _check_shared_files(meta: Metadata) -> None:
    numbers = unpacked(meta.shared_files)
    _require(_is_sorted(numbers), "shared_files_table not sorted")
    objects = meta.unique_files + len(set(numbers))
    _require(
        len(meta.chunk_table) - 1 == objects,
        f"{objects} file objects do not match a chunk table of {len(meta.chunk_table)}",
    )
    _require(not numbers or numbers[-1] == len(set(numbers)) - 1, "shared_files_table has gaps")


def _check_size_cache(meta: Metadata) -> None:
    cache = meta.root.optional_struct(30)
    if cache is None:
        return
    least = cache.integer(2)
    table = meta.chunk_table
    tree = Tree(meta)
    for field, wanted in ((1, 0), (3, 1)):
        items = cache.items(field)
        keys = items.column(1).unpack()
        _require(all(starmap(lt, pairwise(keys))), "the size cache is not sorted")
        for key, size in zip(keys, items.column(2, 64).unpack(), strict=True):
            _require(key + 1 < len(table), "a size cache entry is for no file")
            first, last = table[key], table[key + 1]
            _require(last - first >= least, "a size cache entry is for a file of few chunks")
            found = tree.sizes_of_chunks(first, last)[wanted]
            _require(found == size, f"the size cache says {size} for a file of {found} bytes")


def _check_tree(tree: Tree) -> None:
    """Every directory is reached once, from the root; names are names, in order, each once."""
    pending = [0]
    seen = {0}
    while pending:
        directory = pending.pop()
        last = b""
        for name, inode in tree.readdir(directory):
            _require(name > last, f"directory {directory} is not sorted by name")
            last = name
            if tree.is_directory(inode):
                _require(inode not in seen, "cycle detected during directory walk")
                seen.add(inode)
                pending.append(inode)
    _require(len(seen) == tree.metadata.first_link, "there are directories that nothing leads to")
