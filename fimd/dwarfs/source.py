"""The bytes of an image inside its file, read by position and never past where they end."""

import contextlib
import os
import stat
from typing import Self

from fimd.dwarfs.errors import DamagedError, NotAnImageError


class Source:
    """A window of `size` bytes from `offset` in a regular file, which others may be changing.

    Reads by `pread`, so it is safe in threads, and a file cut short is an error, not a SIGBUS.
    Positions are the file's own (absolute), so that messages name what a hex editor shows.
    """

    def __init__(self, fd: int, name: str, offset: int, size: int | None) -> None:
        """Take ownership of `fd`. Raises NotAnImageError where the window lies outside the file."""
        self.fd = fd
        self.name = name
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotAnImageError("not a regular file", path=name)
        if not 0 <= offset <= status.st_size:
            raise NotAnImageError(
                f"the file has {status.st_size} bytes, none at this offset",
                path=name,
                offset=offset,
            )
        if size is not None and not 0 <= size <= status.st_size - offset:
            raise NotAnImageError(
                f"{size} bytes do not fit in the file, which has {status.st_size}",
                path=name,
                offset=offset,
            )
        self.offset = offset
        self.end = status.st_size if size is None else offset + size

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | int,
        offset: int,
        size: int | None,
        name: str | None = None,
    ) -> Self:
        """Open a path for reading, or duplicate a descriptor. Raises OSError as well.

        `name` is what messages call what a descriptor has open.
        """
        if isinstance(path, int):
            fd = os.dup(path)
            with contextlib.suppress(OSError):  # a nicer name only, where /proc is there
                name = name or os.readlink(f"/proc/self/fd/{path}")
            name = name or f"descriptor {path}"
        else:
            # O_NONBLOCK: a fifo in the image's place must not hang the caller
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            name = os.fsdecode(path)
        try:
            return cls(fd, name, offset, size)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Close the file; reading afterwards raises OSError."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self, position: int, size: int) -> bytes:
        """Exactly `size` bytes. Raises DamagedError where the image or the file ends before."""
        if position < self.offset or position + size > self.end:
            raise DamagedError(
                f"the image ends before {size} bytes could be read", path=self.name, offset=position
            )
        data = os.pread(self.fd, size, position)
        if len(data) == size:
            return data
        parts = [data]
        missing = size - len(data)
        while missing and parts[-1]:  # a single pread stops at 2 GiB
            parts.append(os.pread(self.fd, missing, position + size - missing))
            missing -= len(parts[-1])
        if missing:
            raise DamagedError("the file was cut short", path=self.name, offset=position)
        return b"".join(parts)
