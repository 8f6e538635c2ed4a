"""Synthetic FlatImages: what FlatImage's own builds look like, small and with chosen faults."""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fimd.flatimage.file import open_image
from fimd.flatimage.layout import find_layout
from fimd.flatimage.reserved import Field, read_field, write_field
from tests.support.tmpfs import tmpfs

MIB = 1 << 20
SHARED = Path(__file__).parents[2].parent / "shared" / "images"


def section(number: int, kind: int, payload: bytes, minor: int = 5) -> bytes:
    header = struct.pack(
        "<6sBB32sQIHHQ", b"DWARFS", 2, minor, b"", 0, number, kind, 0, len(payload)
    )
    return header + payload


def dwarfs(content: bytes = b"content", *, index: bool = True) -> bytes:
    """The sections of a DwarFS image with `content` for its block, and nothing real in them."""
    parts = [section(0, 0, content), section(1, 7, b"schema"), section(2, 8, b"metadata")]
    if index:
        offsets = [(kind << 48) | sum(map(len, parts[:n])) for n, kind in enumerate((0, 7, 8, 9))]
        parts.append(section(3, 9, struct.pack("<4Q", *offsets)))
    return b"".join(parts)


def record(layer: bytes) -> bytes:
    return struct.pack("<Q", len(layer)) + layer


def elf(reserved_offset: int | None = None, *, body: bytes = b"\x90" * 200) -> bytes:
    """An ELF-64 program, with the section that FlatImage 2.x records its reserved offset in."""
    ident = b"\x7fELF\x02\x01\x01\x00FI\x01".ljust(16, b"\0")
    names = b"\0.shstrtab\0.fim_reserved_offset\0"
    word = b"" if reserved_offset is None else struct.pack("<I", reserved_offset)
    data = body + names + word
    sections = [bytes(64), shdr(1, 64 + len(body), len(names))]
    if reserved_offset is not None:
        sections.append(shdr(11, 64 + len(body) + len(names), 4))
    table = 64 + len(data)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, table, 0, 64, 56, 0, 64, len(sections), 1
    )
    return header + data + b"".join(sections)


def shdr(name: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, offset, size, 0, 0, 1, 0)


def tools(count: int) -> bytes:
    """`count` ELF tools with their length words; one has the DwarFS magic in it, as dwarfs_aio."""
    decoy = b"...DWARFS\x02\x05" + bytes(100) + b"DWARFS"
    bodies = [decoy if number == 8 else bytes([number]) * (50 + number) for number in range(count)]
    return b"".join(record(elf(body=body)) for body in bodies)


@dataclass(frozen=True)
class Sample:
    """An image file and what is known of it."""

    path: Path
    reserved_offset: int
    chain_offset: int
    layers: list[tuple[int, int]]

    def patch(self, offset: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def cut(self, size: int) -> None:
        with self.path.open("r+b") as file:
            file.truncate(size)

    def add(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def put(self, field: Field[Any], value: object) -> None:
        with open_image(self.path, writable=True) as fd:
            write_field(fd, find_layout(fd), field, value)

    def get(self, field: Field[Any]) -> Any:
        with open_image(self.path) as fd:
            return read_field(fd, find_layout(fd), field)

    @property
    def size(self) -> int:
        return self.path.stat().st_size


Build = Callable[..., Sample]


def make_image(
    folder: Path, kind: str = "elf-v2", layers: Sequence[bytes] = (), name: str | None = None
) -> Sample:
    """`<kind>.flatimage` of the given layers; `kind` is script, elf-v2 or elf-v1."""
    if kind == "script":
        text = "#!/bin/sh -\nFIM_RESERVED_OFFSET=4096\nexit 3\n"
        start, reserved = text.encode().ljust(4096, b"\n"), 4 * MIB
    elif kind == "elf-v2":
        blobs = tools(12)
        start = elf(len(elf(0)) + len(blobs)) + blobs
        reserved = 4 * MIB
    else:
        start, reserved = elf() + tools(13), 2 * MIB
    path = folder / (name or f"{kind}.flatimage")
    extents = []
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + reserved)
        file.seek(0, 2)
        for layer in layers or [dwarfs(b"base")]:
            extents.append((file.tell() + 8, len(layer)))
            file.write(record(layer))
    path.chmod(0o755)
    return Sample(path, len(start), len(start) + reserved, extents)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Makes images in the test's own folder; takes what `make_image` takes after it."""
    return partial(make_image, tmp_path)


@pytest.fixture(scope="session")
def sample_images() -> Path:
    """The reference implementation's images, beside the project."""
    if not SHARED.is_dir():
        pytest.skip(f"no sample images at {SHARED}")
    return SHARED


@pytest.fixture
def make_dwarfs() -> Callable[..., bytes]:
    return dwarfs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    with tmpfs(tmp_path / "disk", "16m") as disk:
        yield disk
