"""Where an image file has its reserved space and its chain of layers.

Ours begins with a shell script that says so itself. FlatImage's begin with an ELF program: 2.x
names the place in a section, 1.x leaves it to walking over the tools behind the program; where
both are damaged, the first DwarFS image that holds its own is looked for.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from . import elf, scan
from .errors import DamagedImageError, NotAnImageError
from .file import name_of, read_at, size_of
from .section import starts_layer

MIB: Final = 1 << 20
RESERVED_SIZE: Final = 4 * MIB
RESERVED_SIZE_V1: Final = 2 * MIB

HEADER_LIMIT: Final = 4096
SCRIPT_START: Final = b"#!/bin/sh"
OFFSET_LINE: Final = re.compile(rb"^FIM_RESERVED_OFFSET=([1-9][0-9]{0,6})$", re.MULTILINE)

LENGTH: Final = struct.Struct("<Q")
MOST_TOOLS: Final = 64


class Kind(StrEnum):
    """Who made the image, which decides how its reserved space is read."""

    SCRIPT = "script"
    ELF_V2 = "elf-v2"
    ELF_V1 = "elf-v1"


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of an image file, by absolute offsets and sizes in bytes."""

    kind: Kind
    reserved_offset: int
    reserved_size: int

    @property
    def chain_offset(self) -> int:
        """Where the first layer's length word is."""
        return self.reserved_offset + self.reserved_size


def find_layout(fd: int) -> Layout:
    """The layout of the open image.

    Raises NotAnImageError where it is no FlatImage, DamagedImageError where it is one that ends
    before its first layer.
    """
    start = read_at(fd, 0, HEADER_LIMIT)
    if start.startswith(SCRIPT_START):
        return _script_layout(fd, start)
    if start.startswith(elf.MAGIC):
        return _elf_layout(fd)
    raise NotAnImageError(
        f"{name_of(fd)} is no FlatImage: it begins neither with an ELF program nor with a script"
    )


def _script_layout(fd: int, start: bytes) -> Layout:
    match = OFFSET_LINE.search(start)
    if match is None:
        raise NotAnImageError(
            f"{name_of(fd)} is a script, but no FlatImage: "
            f"FIM_RESERVED_OFFSET is not in its first {HEADER_LIMIT} bytes"
        )
    offset = int(match[1])
    if offset < match.end() or offset > MIB:
        raise DamagedImageError(
            f"{name_of(fd)}: FIM_RESERVED_OFFSET at offset {match.start()} is {offset}, "
            "which cannot be: the image's header is damaged, copy or download it again"
        )
    layout = Layout(Kind.SCRIPT, offset, RESERVED_SIZE)
    if layout.chain_offset > size_of(fd):
        raise DamagedImageError(
            f"{name_of(fd)} ends at offset {size_of(fd)}, before its first layer at "
            f"{layout.chain_offset}: it is incomplete, copy or download it again"
        )
    return layout


def _elf_layout(fd: int) -> Layout:
    program = elf.read_program(fd)
    tools_end = None if program is None else _walk_tools(fd, program.end)
    guesses = list(_guesses(None if program is None else program.reserved_offset, tools_end))
    size = size_of(fd)
    for layout in guesses:
        if _begins_record(fd, layout.chain_offset, size):
            return layout

    # The first layer is damaged, or what leads to it. Layers further up may be whole.
    first = scan.first_record(fd, 0 if program is None else min(program.end, size), size)
    for layout in guesses:
        if layout.chain_offset <= (size if first is None else first):
            return layout
    if first is None:
        raise NotAnImageError(f"{name_of(fd)} is an ELF program that carries no DwarFS layer")
    return _layout_before(fd, first)


def _guesses(recorded: int | None, tools_end: tuple[int, int] | None) -> Iterator[Layout]:
    if recorded is not None:
        yield Layout(Kind.ELF_V2, recorded, RESERVED_SIZE)
    if tools_end is not None:
        offset, count = tools_end
        v1 = Layout(Kind.ELF_V1, offset, RESERVED_SIZE_V1)
        v2 = Layout(Kind.ELF_V2, offset, RESERVED_SIZE)
        if count > 0:
            yield from (v1, v2) if count == 13 else (v2, v1)


def _walk_tools(fd: int, offset: int) -> tuple[int, int]:
    """Where the length-prefixed tools from `offset` on end, and how many there are."""
    size = size_of(fd)
    for count in range(MOST_TOOLS):
        word = read_at(fd, offset, LENGTH.size + len(elf.MAGIC))
        if word[LENGTH.size :] != elf.MAGIC:
            return offset, count
        end = offset + LENGTH.size + LENGTH.unpack_from(word)[0]
        if end > size:
            return offset, count
        offset = end
    return offset, MOST_TOOLS


def _begins_record(fd: int, offset: int, size: int) -> bool:
    word = read_at(fd, offset, LENGTH.size)
    if len(word) < LENGTH.size:
        return False
    length = LENGTH.unpack(word)[0]
    start = offset + LENGTH.size
    return 0 < length <= size - start and starts_layer(fd, start, start + length)


def _layout_before(fd: int, chain_offset: int) -> Layout:
    """The layout whose chain starts at `chain_offset`, by what the bytes before it look like."""
    v1 = Layout(Kind.ELF_V1, chain_offset - RESERVED_SIZE_V1, RESERVED_SIZE_V1)
    v2 = Layout(Kind.ELF_V2, chain_offset - RESERVED_SIZE, RESERVED_SIZE)
    for layout in (v2, v1):
        if layout.reserved_offset > 0 and _looks_reserved(fd, layout):
            return layout
    raise DamagedImageError(
        f"{name_of(fd)} has a layer at offset {chain_offset + LENGTH.size}, but nothing that "
        "could be a reserved space before it: its beginning is damaged, copy or download it again"
    )


def _looks_reserved(fd: int, layout: Layout) -> bool:
    # The table's first bytes: u64 permissions, u8 notify, then in 2.x u8 overlay, u8 casefold.
    permissions, notify, overlay, casefold = struct.unpack(
        "<QBBB", read_at(fd, layout.reserved_offset, 11)
    )
    if notify > 1:
        return False
    if layout.kind is Kind.ELF_V1:
        return bool(permissions < 1 << 12 and overlay in (0, ord("{")))
    return bool(permissions < 1 << 15 and overlay in (0, 2, 4, 8) and casefold <= 2)
