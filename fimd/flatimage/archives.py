"""Tar archives read as a stream, whatever compresses them, with bounded memory.

The standard library takes a header that makes no sense for the end of the archive, and reads names
and pax headers of any size into memory. Here the first is damage, and so is the second: the library
reads through a file that knows what it was asked for last.
"""

import contextlib
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Final, Protocol, cast

import zstandard

PIECE: Final = 1 << 18
# Real names and pax headers have some kilobytes.
MOST_HEADER_BYTES: Final = 1 << 20
# xz -9 takes 65 MiB to unpack, and zstd --ultra -22 as much as 128.
MOST_DECODER_BYTES: Final = 512 << 20
MOST_PADDING: Final = 64 << 20  # tar fills up to its block size, commonly 10 KiB
END: Final = bytes(tarfile.BLOCKSIZE)

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


@contextlib.contextmanager
def open_tar(file: BinaryIO) -> Iterator[tarfile.TarFile]:
    """The tar archive in `file`, to be read from its beginning to its end, once.

    Raises one of DAMAGE where it is none, and on leaving where there is more than was read.
    """
    plain = Forward(_decompressed(file))
    with tarfile.open(fileobj=cast("BinaryIO", plain), mode="r:", errors="surrogateescape") as tar:
        yield tar
    plain.check_end()


def forget_members(tar: tarfile.TarFile) -> None:
    """Free what the library keeps of the members read so far."""
    tar.members = []  # type: ignore[attr-defined]  # no public way, and it is what its users do


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Forward:
    """A file that is read from its beginning to its end, as the library reads an archive.

    What the library reads on and on, in one piece or (Python 3.14) in many, is a header, which a
    block of its own comes before. A member's content is its reader's, who asks for it by name.
    """

    def __init__(self, source: _Readable) -> None:
        self._source = source
        self._position = 0
        self._last = b""
        self._header = 0
        """Bytes of a header that have been read since its own block."""

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, less only at the end."""
        self._header = self._header + size if size > tarfile.BLOCKSIZE else 0
        if size < 0 or self._header > MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims more than {MOST_HEADER_BYTES} bytes")
        return self._read(size)

    def content(self, size: int) -> bytes:
        """The same of a member's content."""
        self._header = 0
        return self._read(size)

    def _read(self, size: int) -> bytes:
        pieces = []
        while size and (data := self._source.read(size)):
            pieces.append(data)
            size -= len(data)
        self._last = b"".join(pieces)
        self._position += len(self._last)
        return self._last

    def tell(self) -> int:
        """How much has been read."""
        return self._position

    def seek(self, position: int) -> int:
        """Read on to a position, or to the end where that comes first."""
        if position < self._position:
            raise tarfile.ReadError("a header points back")
        while (left := position - self._position) and self.content(min(left, PIECE)):
            pass
        return self._position

    def seekable(self) -> bool:
        """Not backwards."""
        return False

    def check_end(self) -> None:
        """Raise ReadError unless the library has stopped at the end, and nothing follows.

        It stops without a word at a header that it can't read, and where nothing is left; a
        block of zeros ends an archive, but a damaged header may be one as well.
        """
        if self._last != END:
            raise tarfile.ReadError("a header makes no sense, or the archive's end is missing")
        end = self._position
        while data := self._source.read(PIECE):
            self._position += len(data)
            if data.strip(b"\0"):
                raise tarfile.ReadError(f"more follows after its end at byte {end}")
            if self._position - end > MOST_PADDING:  # the compression's own checksum comes last
                raise tarfile.ReadError(f"its end at byte {end} is followed by zeros for ever")


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
