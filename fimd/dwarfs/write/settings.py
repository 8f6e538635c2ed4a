"""What packing is asked for and tells: facts that importing brings no numpy for."""

from collections.abc import Callable
from dataclasses import dataclass

from fimd.dwarfs.write.levels import DEFAULT_LEVEL


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work has come.

    Attributes:
        phase: "survey" or "pack"; the first may end early.
        bytes_done: of the files' content, in this phase.
        bytes_total: the most that it can become.
        bytes_written: of the image.
    """

    phase: str
    bytes_done: int
    bytes_total: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What was packed.

    Attributes:
        files: regular files, each hard-linked one once.
        directories: with the root.
        links: symbolic links.
        devices: character and block devices, also those that stand for deletions.
        others: fifos and sockets.
        hard_links: further names of the files.
        duplicates: files whose content another file has too.
        bytes_in: of the files, each hard-linked one once.
        bytes_duplicate: of these, in files that equal another.
        bytes_repeated: of the rest, found in earlier data.
        bytes_out: of the image.
        blocks: sections of file content.
        times_clamped: entries from before 1970 or after 2242, whose time became the nearest.
    """

    files: int
    directories: int
    links: int
    devices: int
    others: int
    hard_links: int
    duplicates: int
    bytes_in: int
    bytes_duplicate: int
    bytes_repeated: int
    bytes_out: int
    blocks: int
    times_clamped: int


@dataclass(frozen=True, slots=True)
class Settings:
    """How to pack.

    Attributes:
        level: 0 to 9, as mkdwarfs has them.
        threads: that compress; None for one on each processor that this process may use, as far as
            the memory goes.
        subsecond: keep the times' nanoseconds, which releases before 0.14 do not show.
        sparse: keep holes, which releases before 0.14 refuse; None where at least 16 MiB are.
        created: the time to write into the image, in seconds since 1970; None for none.
        progress: called about ten times a second.
        cancelled: asked about ten times a second; the work ends with CancelledError.
    """

    level: int = DEFAULT_LEVEL
    threads: int | None = None
    subsecond: bool = False
    sparse: bool | None = None
    created: int | None = None
    progress: Callable[[Progress], None] | None = None
    cancelled: Callable[[], bool] | None = None
