"""A file that gets its name when it is complete, and never one that is taken.

Until then it has none (O_TMPFILE), so that nothing is left whenever the process is killed. Where
the filesystem can't do that, it has a hidden name, and a record of that name lies in the data
directory's tmp/ for the next one to clean up.

All of it is by descriptors of directories, so it works in a jail, too.
"""

import errno
import os
import re
import secrets
from contextlib import suppress
from typing import Final, Self

from fimd.base.errors import AccessDeniedError, FimError
from fimd.base.system_calls import RENAME_NOREPLACE, link_descriptor, rename

_NO_TMPFILE: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_NO_LINK: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_LONGEST_RECORD: Final = 8192
_RECORD: Final = re.compile(r"fimd-part-([0-9a-f]{16})")


class NewFile:
    """A file being written. A context manager: what was not published is gone at its end."""

    def __init__(
        self, directory: int, path: str, records: int | None = None, *, named: bool = False
    ) -> None:
        """Make a file that can be published in an open directory, which messages call `path`.

        `records` is a data directory's tmp/. Raises AccessDeniedError where that can't be. `named`
        gives it a hidden name in any case.
        """
        self._directory = directory
        self._path = path
        self._place = directory
        self._part: str | None = None
        self._record: tuple[int, str] | None = None
        try:
            if named or not self._open_nameless():
                self._open_named(records)
        except OSError as error:
            raise AccessDeniedError(
                f"{path} can't be written ({error.strerror}): choose another place"
            ) from error

    def _open_nameless(self) -> bool:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        try:
            self.fd = os.open(".", flags, 0o644, dir_fd=self._directory)
        except OSError as error:
            if error.errno in _NO_TMPFILE:
                return False
            raise
        return True

    def _open_named(self, records: int | None) -> None:
        number = secrets.token_hex(8)
        part = f".fimd-part-{number}"
        if records is not None:
            if os.fstat(records).st_dev == os.fstat(self._directory).st_dev:
                self._place = records  # where nobody takes it for a layer
            self._record = (records, f"fimd-part-{number}")
            there = part if self._place == records else os.path.join(self._path, part)
            _write(records, self._record[1], there)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.fd = os.open(part, flags, 0o644, dir_fd=self._place)
        except BaseException:
            if self._record is not None:
                os.unlink(self._record[1], dir_fd=self._record[0])
            raise
        self._part = part

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        if self._part is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._part, dir_fd=self._place)
        if self._record is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._record[1], dir_fd=self._record[0])

    def publish(self, name: str, directory: int | None = None) -> None:
        """Give the file its name, after all that was written is on the disk.

        `directory` is where, another than the file was made for. Raises FileExistsError where the
        name is taken; another may be tried then.
        """
        os.fsync(self.fd)
        directory = self._directory if directory is None else directory
        try:
            self._link(directory, name)
            os.fsync(directory)
        except FileExistsError:
            raise
        except OSError as error:
            raise FimError(
                f"{os.path.join(self._path, name)} can't be made: {error.strerror}"
            ) from error

    def _link(self, directory: int, name: str) -> None:
        if self._part is None:
            link_descriptor(self.fd, directory, name)
            return
        try:
            os.link(
                self._part,
                name,
                src_dir_fd=self._place,
                dst_dir_fd=directory,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            names = (os.fsencode(self._part), os.fsencode(name))
            rename(*names, self._place, directory, RENAME_NOREPLACE)


def _write(directory: int, name: str, text: str) -> None:
    """Write a record: no link, which some file systems have not."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
        file.write(os.fsencode(text))


def _read(directory: int, name: str) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=directory), "rb") as file:
        return os.fsdecode(file.read(_LONGEST_RECORD))


def remove_parts(records: int) -> tuple[int, list[str]]:
    """Remove the files that were never published, by their records; return how many there were.

    Those on another file system, where a record's word is not taken for it, are returned by path.
    For the holder of the data directory's lock: any record there is a dead process's.
    """
    removed, elsewhere = 0, []
    for name in os.listdir(records):
        match = _RECORD.fullmatch(name)
        if match is None:
            continue
        part = f".fimd-part-{match[1]}"
        with suppress(OSError):
            there = _read(records, name)
            if there == part:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=records)
                    removed += 1
            elif os.path.basename(there) == part:
                elsewhere.append(there)
        with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
            os.unlink(name, dir_fd=records)
    return removed, elsewhere
