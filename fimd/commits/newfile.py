"""A file that gets its name when it is complete, and never one that is taken.

Until then it has none (O_TMPFILE), so that nothing is left whenever the process is killed. Where
the filesystem can't do that, it has a hidden name, and a record of that name lies in the data
directory's tmp/ for the next one to clean up.
"""

import errno
import os
import re
import secrets
from contextlib import suppress
from typing import Final, Self

from fimd.base.errors import AccessDeniedError, FimError
from fimd.base.system_calls import RENAME_NOREPLACE, rename

_NO_TMPFILE: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_NO_LINK: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_RECORD: Final = re.compile(r"fimd-part-([0-9a-f]{16})")


class NewFile:
    """A file being written. A context manager: what was not published is gone at its end."""

    def __init__(self, directory: str, records: str | None = None, *, named: bool = False) -> None:
        """Make a file that can be published in `directory`; `records` is a data directory's tmp/.

        Raises AccessDeniedError where that can't be. `named` gives it a hidden name in any case.
        """
        self._directory = directory
        self._part: str | None = None
        self._record: str | None = None
        try:
            if named or not self._open_nameless():
                self._open_named(records)
        except OSError as error:
            raise AccessDeniedError(
                f"{directory} can't be written ({error.strerror}): choose another place"
            ) from error

    def _open_nameless(self) -> bool:
        try:
            self.fd = os.open(self._directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno in _NO_TMPFILE:
                return False
            raise
        return True

    def _open_named(self, records: str | None) -> None:
        number = secrets.token_hex(8)
        place = self._directory
        if records is not None and os.stat(records).st_dev == os.stat(place).st_dev:
            place = records  # where nobody takes it for a layer
        part = os.path.join(place, f".fimd-part-{number}")
        if records is not None:
            self._record = os.path.join(records, f"fimd-part-{number}")
            os.symlink(os.path.abspath(part), self._record)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.fd = os.open(part, flags, 0o644)
        except BaseException:
            if self._record is not None:
                os.unlink(self._record)
            raise
        self._part = part

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        for path in (self._part, self._record):
            if path is not None:
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def publish(self, name: str) -> None:
        """Give the file its name, after all that was written is on the disk.

        Raises FileExistsError where the name is taken; another may be tried then.
        """
        os.fsync(self.fd)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._link(directory, name)
            os.fsync(directory)
        except FileExistsError:
            raise
        except OSError as error:
            raise FimError(
                f"{os.path.join(self._directory, name)} can't be made: {error.strerror}"
            ) from error
        finally:
            os.close(directory)

    def _link(self, directory: int, name: str) -> None:
        if self._part is None:
            # with a directory's descriptor Python follows the link, see linkat(2)
            source = f"/proc/self/fd/{self.fd}"
            os.link(source, name, src_dir_fd=directory, dst_dir_fd=directory)
            return
        part = os.path.abspath(self._part)
        try:
            os.link(part, name, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            names = (os.fsencode(part), os.fsencode(name))
            rename(*names, directory, directory, RENAME_NOREPLACE)


def remove_parts(records: str) -> int:
    """Remove the files that were never published, by their records; return how many there were.

    For the holder of the data directory's lock: any record there is a dead process's.
    """
    removed = 0
    for name in os.listdir(records):
        match = _RECORD.fullmatch(name)
        if match is None:
            continue
        record = os.path.join(records, name)
        with suppress(OSError):
            part = os.readlink(record)
            if os.path.basename(part) == f".fimd-part-{match[1]}":
                with suppress(FileNotFoundError):
                    os.unlink(part)
                    removed += 1
        with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
            os.unlink(record)
    return removed
