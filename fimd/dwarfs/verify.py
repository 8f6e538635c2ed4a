"""Whether an image is whole: checksums of every section, tables that agree, blocks that decompress.

What verifies without a fault is what was written, unless someone has made the image to deceive and
computed all its checksums; then it is at least one that no reader stumbles over.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from fimd.dwarfs import bounds, consistency, sections
from fimd.dwarfs.errors import CancelledError, DamagedError, DwarfsError
from fimd.dwarfs.format import SectionType
from fimd.dwarfs.reader import Image
from fimd.dwarfs.sections import Section

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

_BLOCKS_BYTES = 256 << 20  # decompressed at the same time at most, or one block


def verify(
    image: Image,
    *,
    content: bool = False,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    threads: int | None = None,
) -> list[DwarfsError]:
    """Every fault of an image, none where it is whole.

    Checks XXH3-64 and SHA-512/256 of all sections and the consistency of the metadata; with
    `content` also that each block decompresses to all that files take from it, so that every byte
    of every file can be read. Images before 2.2 have no checksums: of them only `content` finds
    what is wrong with a block. Raises CancelledError soon after `cancelled` says so.
    """
    faults: list[DwarfsError] = []
    try:
        consistency.check(image.tree)
    except DwarfsError as error:
        faults.append(error.at(*image.metadata_place))
    needed = _needed_bytes(image, faults) if content else {}
    total, done = image.size, 0
    threads = threads or len(os.sched_getaffinity(0))
    if content:
        threads = max(1, min(threads, _BLOCKS_BYTES // image.block_size))
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        for size, fault in _in_order(pool, 2 * threads, _jobs(image, needed, content=content)):
            done += size
            if fault is not None:
                faults.append(fault)
            if progress is not None:
                progress(done, total)
            if cancelled is not None and cancelled():
                pool.shutdown(cancel_futures=True)
                raise CancelledError("the verification was cancelled", path=image.source.name)
    return faults


_Result = tuple[int, DwarfsError | None]


def _in_order(
    pool: ThreadPoolExecutor, ahead: int, jobs: Iterator[Callable[[], _Result]]
) -> Iterator[_Result]:
    """The jobs' results in order, no more than `ahead` of them being worked on."""
    running: deque[Future[_Result]] = deque()
    for job in jobs:
        running.append(pool.submit(job))
        if len(running) >= ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _jobs(
    image: Image, needed: dict[int, int], *, content: bool
) -> Iterator[Callable[[], _Result]]:
    block = 0
    for section in image.table.sections:
        if section.type == SectionType.BLOCK:
            yield partial(_check_section, image, section, block, needed.get(block, 0), content)
            block += 1
        else:
            yield partial(_check_section, image, section, None, 0, content)


def _check_section(
    image: Image, section: Section, block: int | None, needed: int, content: bool
) -> _Result:
    try:
        sections.check_digest(image.source, image.table, section)
        if block is not None and content:
            size = len(image.load_block(block))
            if size < needed:
                raise DamagedError(f"files take {needed} bytes from this block, it has {size}")
        elif section.type == SectionType.HISTORY:
            image.section_content(section, bounds.HISTORY_BYTES)
    except DwarfsError as error:
        return section.size, error.at(image.source.name, section.offset, section.name)
    return section.size, None


def _needed_bytes(image: Image, faults: list[DwarfsError]) -> dict[int, int]:
    """How many bytes of each block files use; adds a fault where they use one that is not there."""
    chunks = image.metadata.chunks
    needed: dict[int, int] = {}
    columns = [chunks.column(field).unpack() for field in (1, 2, 3)]
    for block, offset, size in zip(*columns, strict=True):
        if block != image.metadata.hole_block and offset + size > needed.get(block, 0):
            needed[block] = offset + size
    missing = max(needed, default=-1)
    if missing >= len(image.blocks):
        faults.append(
            DamagedError(f"block number out of range: {missing} of {len(image.blocks)}").at(
                *image.metadata_place
            )
        )
    return needed
