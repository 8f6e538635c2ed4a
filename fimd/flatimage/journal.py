"""Writing to the reserved space so that a crash leaves the old bytes or the new, never a mixture.

A field has its fixed place, so it can only be overwritten where it is. What fits one disk sector
is written at once. Anything longer goes first, compressed, to a journal in the part of the reserved
space that FlatImage leaves unused, then to its place, and then the journal is zeroed: each step
synced before the next. Readers lay a valid journal over what they read, and the next writer
completes it. FlatImage itself ignores the journal; only for the moment between a crash and that
completion can it see the mixture.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from .file import read_at, read_exactly, sync, write_at, write_errors
from .layout import MIB, Kind, Layout

SECTOR: Final = 512
MAGIC: Final = b"FIMJRNL\x01"
# magic, CRC-32 of all that follows, then offset and length of the target, length of the payload
RECORD: Final = struct.Struct("<8sI")
TARGET: Final = struct.Struct("<III")
HEAD: Final = RECORD.size + TARGET.size

# Offset from the start of the reserved space, and bytes up to what FlatImage uses next.
PLACE: Final = {
    Kind.SCRIPT: (3_166_208, 4 * MIB - 3_166_208),
    Kind.ELF_V2: (3_166_208, 4 * MIB - 3_166_208),
    Kind.ELF_V1: (8192, MIB - 8192),
}


@dataclass(frozen=True, slots=True)
class Pending:
    """A write that was interrupted: what belongs where, from the start of the reserved space."""

    offset: int
    data: bytes


def read(fd: int, layout: Layout, offset: int, size: int) -> bytes:
    """`size` bytes at `offset` of the reserved space, as they are once every write is complete."""
    before = pending(fd, layout)
    while True:
        data = read_exactly(fd, layout.reserved_offset + offset, size, "its reserved space")
        after = pending(fd, layout)
        if after == before:
            return data if before is None else _overlaid(data, offset, before)
        before = after  # a writer was at it meanwhile, so what was read may be a mixture


def write(fd: int, layout: Layout, offset: int, data: bytes) -> bool:
    """Put `data` at `offset` of the reserved space, on the disk. The caller holds the lock.

    False, with nothing written, where the data compresses to more than the journal holds.
    """
    complete(fd, layout)
    old = read_exactly(fd, layout.reserved_offset + offset, len(data), "its reserved space")
    start, end = _difference(old, data)
    if start == end:
        return True
    position = layout.reserved_offset + offset + start
    if position // SECTOR == (position + end - start - 1) // SECTOR:
        write_at(fd, position, data[start:end])
        sync(fd)
        return True
    place, room = PLACE[layout.kind]
    record = _record(offset + start, data[start:end])
    if len(record) > room:
        return False
    # The reserved space may be a hole in the file, and with the journal written there is no way
    # back: the disk has to have room for all of it before.
    with write_errors(fd):
        os.posix_fallocate(fd, layout.reserved_offset + place, len(record))
        os.posix_fallocate(fd, position, end - start)
    write_at(fd, layout.reserved_offset + place, record)
    sync(fd)
    complete(fd, layout)
    return True


def complete(fd: int, layout: Layout) -> None:
    """Finish the write that is in the journal, if there is one. The caller holds the lock."""
    place, room = PLACE[layout.kind]
    head = read_at(fd, layout.reserved_offset + place, HEAD)
    if not head.startswith(MAGIC) or len(head) < HEAD:
        return
    found = pending(fd, layout)
    if found is not None:
        write_at(fd, layout.reserved_offset + found.offset, found.data)
        sync(fd)
    _crc, _offset, _length, stored = _head(head)
    write_at(fd, layout.reserved_offset + place, bytes(min(HEAD + stored, room)))
    sync(fd)


def pending(fd: int, layout: Layout) -> Pending | None:
    """The write in the journal; None where there is none, or only part of one."""
    place, room = PLACE[layout.kind]
    head = read_at(fd, layout.reserved_offset + place, HEAD)
    if not head.startswith(MAGIC) or len(head) < HEAD:
        return None
    crc, offset, length, stored = _head(head)
    if stored > room - HEAD or not _is_outside(offset, length, place, room, layout):
        return None
    payload = read_at(fd, layout.reserved_offset + place + HEAD, stored)
    if zlib.crc32(head[RECORD.size :] + payload) != crc:
        return None
    try:
        data = zlib.decompressobj().decompress(payload, length)
    except zlib.error:
        return None
    return Pending(offset, data) if len(data) == length else None


def _is_outside(offset: int, length: int, place: int, room: int, layout: Layout) -> bool:
    end = offset + length
    return length > 0 and end <= layout.reserved_size and (end <= place or offset >= place + room)


def _head(head: bytes) -> tuple[int, int, int, int]:
    _magic, crc = RECORD.unpack_from(head)
    offset, length, stored = TARGET.unpack_from(head, RECORD.size)
    return crc, offset, length, stored


def _record(offset: int, data: bytes) -> bytes:
    payload = zlib.compress(data)
    rest = TARGET.pack(offset, len(data), len(payload)) + payload
    return RECORD.pack(MAGIC, zlib.crc32(rest)) + rest


def _overlaid(data: bytes, offset: int, found: Pending) -> bytes:
    start = max(offset, found.offset)
    end = min(offset + len(data), found.offset + len(found.data))
    if start >= end:
        return data
    middle = found.data[start - found.offset : end - found.offset]
    return data[: start - offset] + middle + data[end - offset :]


def _difference(old: bytes, new: bytes) -> tuple[int, int]:
    """The smallest range of `new` outside which it equals `old`, which has the same length."""
    if old == new:
        return 0, 0
    start, end = 0, len(new)
    step = 1 << 16
    while old[start : start + step] == new[start : start + step]:
        start += step
    while old[start] == new[start]:
        start += 1
    while old[end - 1] == new[end - 1]:
        end -= 1
    return start, end
