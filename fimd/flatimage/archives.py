"""Tar archives read as a stream, whatever compresses them, with bounded memory.

The standard library takes a header that makes no sense for the end of the archive, and reads names
and pax headers of any size into memory. Here the first is damage, and so is the second.
"""

import contextlib
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Final, Protocol, Self, cast

import zstandard

PIECE: Final = 1 << 18
# Real names and pax headers have some kilobytes.
MOST_HEADER_BYTES: Final = 1 << 20
# xz -9 takes 65 MiB to unpack, and zstd --ultra -22 as much as 128.
MOST_DECODER_BYTES: Final = 512 << 20
MOST_PADDING: Final = 1 << 20  # tar fills up to its block size, commonly 10 KiB

READ_WHOLE: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)

DAMAGE: Final = (
    tarfile.TarError,
    gzip.BadGzipFile,  # an OSError, so it has to be caught before those
    lzma.LZMAError,
    zstandard.ZstdError,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,  # pax headers one after another
)
"""What reading a damaged archive may raise."""

GZIP: Final = b"\x1f\x8b"
XZ: Final = b"\xfd7zXZ\0"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"  # after a byte 0x50-0x5f; pzstd begins with such a frame


class TarInfo(tarfile.TarInfo):
    """A member's header, refused where it is damaged or of a size that no real one has."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The header in one block; the library's way of saying that a block of zeros ends all."""
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if info.size < 0 or (info.type in READ_WHOLE and info.size > MOST_HEADER_BYTES):
            raise tarfile.ReadError(f"a header claims {info.size} bytes")
        return info


@contextlib.contextmanager
def open_tar(file: BinaryIO) -> Iterator[tarfile.TarFile]:
    """The tar archive in `file`, to be read from its beginning to its end, once.

    Raises one of DAMAGE where it is none.
    """
    plain = _decompressed(file)
    with tarfile.open(
        fileobj=cast("BinaryIO", plain), mode="r|", tarinfo=TarInfo, errors="surrogateescape"
    ) as tar:
        yield tar
    for _ in range(MOST_PADDING // PIECE):  # the compression's own checksum comes last
        if not plain.read(PIECE):
            return


def forget_members(tar: tarfile.TarFile) -> None:
    """Free what the library keeps of the members read so far."""
    tar.members = []  # type: ignore[attr-defined]  # no public way, and it is what its users do


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _decompressed(file: BinaryIO) -> _Readable:
    start = file.read(len(XZ))
    file.seek(0)
    if start.startswith(GZIP):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(XZ):
        return _Xz(file)
    if start.startswith(ZSTD) or start[1:4] == ZSTD_SKIPPABLE:
        decoder = zstandard.ZstdDecompressor(max_window_size=MOST_DECODER_BYTES)
        return decoder.stream_reader(file, read_across_frames=True, closefd=False)
    return file


class _Xz:
    """Reads xz streams one after another, as lzma.LZMAFile does, but within a memory limit."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.decoder = self._new_decoder()

    @staticmethod
    def _new_decoder() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_DECODER_BYTES)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none only at the end."""
        while True:
            if self.decoder.eof:
                rest = self.decoder.unused_data or self.file.read(PIECE)
                while rest and not rest.strip(b"\0"):  # padding between streams
                    rest = self.file.read(PIECE)
                if not rest:
                    return b""
                self.decoder = self._new_decoder()
                data = self.decoder.decompress(rest.lstrip(b"\0"), size)
            else:
                more = self.file.read(PIECE) if self.decoder.needs_input else b""
                if self.decoder.needs_input and not more:
                    raise EOFError("it ends inside a compressed block")
                data = self.decoder.decompress(more, size)
            if data:
                return data
