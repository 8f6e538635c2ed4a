"""One image, opened: its facts, its tree, its files' bytes."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Final, Self

from fimd.dwarfs import bounds, codecs, sections, thrift
from fimd.dwarfs.blocks import BlockCache
from fimd.dwarfs.codecs import Buffer
from fimd.dwarfs.errors import DamagedError, DwarfsError, UnsupportedError, located
from fimd.dwarfs.files import FileMap
from fimd.dwarfs.format import Compression, SectionType
from fimd.dwarfs.frozen import parse_schema
from fimd.dwarfs.memory import Memory
from fimd.dwarfs.metadata import Metadata
from fimd.dwarfs.sections import Section
from fimd.dwarfs.source import Source
from fimd.dwarfs.tree import HOLE, ROOT, Attributes, Tree

DEFAULT_CACHE_BYTES: Final = 128 << 20
LONGEST_PATH: Final = 64 << 10
"""Bytes of a path. No system call takes as many, and those of directories nested without end would
fill memory."""
_TYPES: Final = frozenset(SectionType)
_COMPRESSIONS: Final = frozenset(Compression)


class Image:
    """A DwarFS image, opened read-only. A context manager; safe in threads.

    Inodes are numbered from 0, the root. Every method raises DwarfsError, with file, section and
    offset in its message, where the image is damaged, and OSError as the system call of its name
    does where the caller asks the wrong thing of an inode.

    Attributes:
        source: the image's bytes in its file.
        table: its sections.
        metadata_place: file, offset and name of the metadata's section, for errors in it.
        blocks: the sections with the files' bytes, by block number.
        tree: names and attributes.
        cache: blocks that have been decompressed.
    """

    root: Final = ROOT

    def __init__(self, source: Source, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """Take ownership of `source` and read the metadata. `Image.open` is the usual way."""
        self.source = source
        try:
            with located(source.name, source.offset):
                self.table = sections.read_table(source)
                self.blocks = [s for s in self.table.sections if s.type == SectionType.BLOCK]
                self.tree = Tree(self._read_metadata())
                self.cache = BlockCache(self.load_block, cache_bytes)
                if not self.table.has_checksums:
                    self._check_v1()
        except BaseException:
            source.close()
            raise

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | int,
        offset: int | None = 0,
        size: int | None = None,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        name: str | None = None,
    ) -> Self:
        """Open the image at `offset` of a regular file, by path or by a descriptor (duplicated).

        `size` is needed where bytes follow the image. An `offset` of None looks for the first
        image in the file. `name` is what messages call what a descriptor has open.
        """
        source = Source.open(path, offset or 0, size, name)
        if offset is None:
            try:
                found = sections.find_image(source)
            except BaseException:
                source.close()
                raise
            source.offset = found
        return cls(source, cache_bytes)

    def close(self) -> None:
        """Close the file and forget the cached blocks."""
        self.cache.clear()
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def metadata(self) -> Metadata:
        """The decoded metadata's tables."""
        return self.tree.metadata

    @property
    def block_size(self) -> int:
        """The most bytes that a decompressed block can have."""
        return self.metadata.block_size

    @property
    def size(self) -> int:
        """Bytes of the image in its file."""
        return self.source.end - self.source.offset

    @property
    def total_size(self) -> int:
        """Bytes of all files and link targets, hardlinks counted once; 0 where not recorded."""
        return self.metadata.root.integer(16)

    @property
    def created(self) -> int | None:
        """When the image was made, in seconds since 1970, None where not recorded."""
        return self.metadata.root.optional_integer(23)

    @property
    def created_by(self) -> str | None:
        """The library that made the image, None where not recorded."""
        holder = self.metadata.root.optional(22)
        return None if holder is None else holder.string(2).decode("utf-8", "replace")

    @cached_property
    def compressions(self) -> dict[str, int]:
        """How many blocks are compressed by what."""
        found: dict[str, int] = {}
        for section in self.blocks:
            name = codecs.name(sections.read_header(self.source, self.table, section).compression)
            found[name] = found.get(name, 0) + 1
        return found

    def history(self) -> list[dict[int, Any]]:
        """The entries of the HISTORY sections, as Thrift structs by field number."""
        entries: list[dict[int, Any]] = []
        left = bounds.HISTORY_BYTES
        for section in self.table.sections:
            if section.type == SectionType.HISTORY:
                content = self.section_content(section, left)
                left -= len(content)
                with located(self.source.name, section.offset, section.name):
                    found = thrift.Reader(content).structure().get(1, [])
                    if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
                        raise DamagedError("a history is no list of entries")
                    entries += found
        return entries

    def lookup(self, inode: int, name: bytes) -> int | None:
        """The inode of a name in a directory, None where there is none."""
        with self._in_metadata():
            return self.tree.lookup(inode, name)

    def readdir(self, inode: int) -> list[tuple[bytes, int]]:
        """Name and inode of each of a directory's entries, sorted by name."""
        with self._in_metadata():
            return list(self.tree.readdir(inode))

    def stat(self, inode: int) -> Attributes:
        """What the system call says of an inode, with the inode's number as this library has it."""
        with self._in_metadata():
            return self.tree.attributes(inode)

    def readlink(self, inode: int) -> bytes:
        """A symbolic link's target."""
        with self._in_metadata():
            return self.tree.readlink(inode)

    def file_map(self, inode: int) -> FileMap:
        """Where a file's bytes are: what to ask for more than a few reads of one file."""
        try:
            return FileMap(self.tree.extents(inode))
        except DwarfsError as error:  # faster than `with`, and every open comes here
            error.at(*self.metadata_place)
            raise

    def read(self, inode: int, offset: int, size: int) -> Buffer:
        """At most `size` bytes of a file, fewer only at its end."""
        return self.read_map(self.file_map(inode), offset, size)

    def read_map(self, file: FileMap, offset: int, size: int) -> Buffer:
        """Read by a file's map."""
        parts: list[Buffer] = []
        for block, start, length in file.pieces(offset, size):
            if block == HOLE:
                parts.append(bytes(length))
            else:
                parts.append(self.slice(block, self.cache.get(block), start, length))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def slice(self, number: int, block: Buffer, offset: int, size: int) -> memoryview:
        """Part of a decompressed block, without a copy. Raises DamagedError outside of it."""
        if offset + size > len(block):
            raise self._damaged(
                f"a chunk of {size} bytes at {offset} leaves block {number} of {len(block)} bytes"
            )
        return memoryview(block)[offset : offset + size]

    def walk(self) -> Iterator[tuple[bytes, Attributes]]:
        """Path (the root's is b"") and attributes of every name, parents first, sorted.

        Raises DamagedError for what is no tree, longer than LONGEST_PATH, or so deep that its
        paths are longer than any tree's on average.
        """
        yield b"", self.stat(ROOT)
        left = self.metadata.entry_count - 1  # the root's own entry is in no directory
        room = bounds.paths_bytes(left)
        seen = {ROOT}
        pending: list[Iterator[tuple[bytes, int]]] = [iter(self.readdir(ROOT))]
        prefixes = [b""]
        while pending:
            entry = next(pending[-1], None)
            if entry is None:
                pending.pop()
                prefixes.pop()
                continue
            name, inode = entry
            left -= 1
            if left < 0:
                raise self._damaged("directories share their entries")
            path = prefixes[-1] + name
            room -= len(path)
            if len(path) > LONGEST_PATH:
                raise self._damaged(f"a path has more than {LONGEST_PATH} bytes")
            if room < 0:
                raise self._damaged(f"directories are nested too deeply: {len(prefixes)} levels")
            yield path, self.stat(inode)
            if self.tree.is_directory(inode):
                if inode in seen:
                    raise self._damaged(
                        f"directory {os.fsdecode(path)!r} is in more than one place"
                    )
                seen.add(inode)
                pending.append(iter(self.readdir(inode)))
                prefixes.append(path + b"/")

    def load_block(self, number: int) -> Buffer:
        """Read, check and decompress a block, past the cache."""
        *_, (block, _) = self.load_block_in_steps(number)
        return block

    def load_block_in_steps(
        self, number: int, memory: Memory | None = None
    ) -> Iterator[tuple[Buffer, int]]:
        """The same with, again and again, how many of its bytes are there, until all of them are.

        More than one step only where the checksum has been found right: what is there then is what
        was written, whatever comes of the rest. A large block may come in memory of `memory`'s.
        """
        if not 0 <= number < len(self.blocks):
            raise self._damaged(f"block number out of range: {number} of {len(self.blocks)}")
        section = self.blocks[number]
        with located(self.source.name, section.offset, section.name):
            header, payload = sections.load(self.source, self.table, section)
            limit = bounds.block_bytes(self.block_size, len(payload))
            steps = codecs.decompress_in_steps(header.compression, payload, limit, memory)
            for block, done in steps:
                if self.table.has_checksums or done == len(block):
                    yield block, done

    def section_content(self, section: Section, limit: int) -> bytes:
        """A section's payload, checked and decompressed."""
        return bytes(self._content(section, limit))

    def _content(self, section: Section, limit: int) -> Buffer:
        with located(self.source.name, section.offset, section.name):
            header, payload = sections.load(self.source, self.table, section)
            return codecs.decompress(header.compression, payload, limit)

    def _in_metadata(self) -> AbstractContextManager[None]:
        return located(*self.metadata_place)

    def _damaged(self, fault: str) -> DamagedError:
        return DamagedError(fault).at(*self.metadata_place)

    def _only(self, kind: SectionType) -> Section:
        found = [section for section in self.table.sections if section.type == kind]
        if len(found) != 1:
            many = "multiple sections" if found else "no section"
            raise DamagedError(f"{many} of type {kind.name} found")
        return found[0]

    def _read_metadata(self) -> Metadata:
        schema_section = self._only(SectionType.METADATA_V2_SCHEMA)
        with located(self.source.name, schema_section.offset, schema_section.name):
            schema = parse_schema(self.section_content(schema_section, bounds.SCHEMA_BYTES))
        section = self._only(SectionType.METADATA_V2)
        self.metadata_place = self.source.name, section.offset, section.name
        with located(self.source.name, section.offset, section.name):
            content = self.section_content(section, bounds.metadata_bytes(section.size))
            return Metadata(content, schema, section.size)

    def _check_v1(self) -> None:
        """What stands in for checksums in the oldest images."""
        from fimd.dwarfs.consistency import check  # noqa: PLC0415 - seldom needed

        for section in self.table.sections:
            header = sections.read_header(self.source, self.table, section)
            if section.type not in _TYPES or header.compression not in _COMPRESSIONS:
                raise UnsupportedError(
                    f"unknown section type {section.type} or compression {header.compression}",
                    offset=section.offset,
                )
        check(self.tree)
