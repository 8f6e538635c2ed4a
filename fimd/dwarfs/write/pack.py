"""From entries to an image: survey them, cut their content into blocks, describe the tree."""

import os
import stat
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from typing import Final

import numpy as np

from fimd.dwarfs.format import Compression, SectionType
from fimd.dwarfs.write import metadata
from fimd.dwarfs.write.codecs import compress
from fimd.dwarfs.write.entries import Entry, ReadContent, checked
from fimd.dwarfs.write.levels import LEVELS, Codec, Level
from fimd.dwarfs.write.output import POLL, SectionWriter
from fimd.dwarfs.write.segments import UNIT, Block, Segmenter
from fimd.dwarfs.write.settings import Progress, Settings, Summary
from fimd.dwarfs.write.survey import Survey, survey
from fimd.dwarfs.write.tree import Tree, build

_HOLES_THAT_PAY: Final = 16 << 20  # bytes in the tree
_ESTIMATE: Final = Codec(Compression.ZSTD, 9)  # chooses between tables that will be compressed
_HOLE: Final = (1 << 64) - 1  # stands for the hole block's number until the blocks are counted
_ZEROS: Final = memoryview(bytes(UNIT))


def create_from(
    entries: Iterable[Entry],
    read: ReadContent,
    output: int,
    settings: Settings | None = None,
    *,
    name: str = "image",
) -> Summary:
    """Write an image of the entries to descriptor `output`, from where it stands.

    The same entries with the same contents and settings give the same bytes, whatever their order
    and the number of threads. `name` stands for the output in errors. Where this raises, what was
    written is not an image. Raises PackError, CancelledError, or what `read` raises.
    """
    settings = settings or Settings()
    if settings.level not in range(len(LEVELS)):
        raise ValueError(f"level {settings.level} is none of 0 to {len(LEVELS) - 1}")
    level = LEVELS[settings.level]
    tree = build(entries)
    threads = settings.threads or _threads(level)
    with SectionWriter(output, name, threads, settings.cancelled) as writer:
        packer = _Packer(tree, read, level, settings, writer)
        return packer.run()


def _threads(level: Level) -> int:
    """As many as there are processors, but no more than fit in half of the free memory."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), free // 2 // level.thread_memory))


class _Packer:
    """One image while it is made."""

    def __init__(
        self,
        tree: Tree,
        read: ReadContent,
        level: Level,
        settings: Settings,
        writer: SectionWriter,
    ) -> None:
        self._tree = tree
        self._read = read
        self._level = level
        self._settings = settings
        self._writer = writer
        self._phase = ""
        self._done = self._total = 0
        self._ticked = 0.0
        self._files = [tree.entries[tree.firsts[inode]] for inode in tree.files()]
        holes = sum(entry.hole_bytes for entry in self._files)
        wanted = settings.sparse
        self._sparse = holes > 0 and (holes >= _HOLES_THAT_PAY if wanted is None else wanted)
        self._segmenter = Segmenter(level, self._emit)

    def run(self) -> Summary:
        self._begin("survey", sum(entry.size for entry in self._files))
        found = survey(self._tree, self._read, self._level.order, self._tick)
        self._begin("pack", sum(entry.size for entry in found.entries))
        contents = self._store(found)
        self._describe(contents)
        self._writer.finish()
        self._tick(0, now=True)
        return self._summary(found)

    def _store(self, found: Survey) -> metadata.Contents:
        """Store the contents in their order."""
        segmenter = self._segmenter
        chunks = segmenter.chunks
        firsts = np.zeros(len(found.entries), np.int64)
        counts = np.zeros(len(found.entries), np.int64)
        for number in found.order:
            firsts[number] = len(chunks)
            segmenter.start_file(found.kinds[number])
            if found.entries[number].size:
                self._store_file(found.entries[number])
            counts[number] = len(chunks) - firsts[number]
        segmenter.finish()
        blocks = np.array(chunks.blocks, np.uint64)
        blocks[blocks == _HOLE] = segmenter.block_count
        return metadata.Contents(
            found.of_inode,
            firsts,
            counts,
            blocks,
            np.array(chunks.offsets, np.uint64),
            np.array(chunks.sizes, np.uint64),
            self._level.block_size,
            segmenter.block_count,
            self._sparse,
        )

    def _store_file(self, entry: Entry) -> None:
        with closing(checked(entry, self._read)) as pieces:
            for piece in pieces:
                if not isinstance(piece, int):
                    for start in range(0, len(piece), UNIT):
                        self._add(memoryview(piece)[start : start + UNIT])
                elif self._sparse:
                    self._segmenter.add_hole(_HOLE, piece)
                    self._tick(piece)
                else:
                    for start in range(0, piece, UNIT):
                        self._add(_ZEROS[: min(UNIT, piece - start)])

    def _add(self, data: memoryview) -> None:
        self._segmenter.add(data)
        self._tick(len(data))

    def _emit(self, block: Block) -> None:
        self._writer.add(SectionType.BLOCK, self._level.data, block.content, block.kind)

    def _describe(self, contents: metadata.Contents) -> None:
        """Write the schema and the metadata."""
        options = metadata.Options(self._settings.subsecond, self._settings.created)
        is_compressed = self._level.metadata.compression is not Compression.NONE
        schema, frozen = metadata.payloads(
            self._tree, contents, options, _compressed_size if is_compressed else None
        )
        self._writer.add(SectionType.METADATA_V2_SCHEMA, self._level.schema, schema)
        self._writer.add(SectionType.METADATA_V2, self._level.metadata, frozen)

    def _begin(self, phase: str, total: int) -> None:
        self._phase, self._done, self._total = phase, 0, total
        self._tick(0, now=True)

    def _tick(self, size: int, *, now: bool = False) -> None:
        self._done += size
        moment = time.monotonic()
        if moment - self._ticked < POLL and not now:
            return
        self._ticked = moment
        self._writer.check_cancelled()
        if self._settings.progress is not None:
            self._settings.progress(
                Progress(self._phase, self._done, self._total, self._writer.written)
            )

    def _summary(self, found: Survey) -> Summary:
        tree = self._tree
        inodes = [tree.entries[first] for first in tree.firsts]
        types = Counter(stat.S_IFMT(entry.mode) for entry in inodes)
        bytes_in = sum(entry.size for entry in self._files)
        return Summary(
            files=types[stat.S_IFREG],
            directories=types[stat.S_IFDIR],
            links=types[stat.S_IFLNK],
            devices=types[stat.S_IFCHR] + types[stat.S_IFBLK],
            others=types[stat.S_IFIFO] + types[stat.S_IFSOCK],
            hard_links=len(tree.entries) - len(inodes),
            duplicates=len(self._files) - len(found.entries),
            bytes_in=bytes_in,
            bytes_duplicate=bytes_in - sum(entry.size for entry in found.entries),
            bytes_repeated=self._segmenter.repeated,
            bytes_out=self._writer.written,
            blocks=self._segmenter.block_count,
            times_clamped=sum(metadata.storable_time(entry) != entry.mtime_ns for entry in inodes),
        )


def _compressed_size(payload: bytes) -> int:
    return len(compress(_ESTIMATE, payload)[1])
