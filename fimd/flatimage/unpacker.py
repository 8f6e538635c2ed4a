"""Writing a tar archive's members below one directory, and nowhere else.

Every name is resolved from that directory one component at a time and without following symbolic
links. Symbolic links are made as they are, wherever they point. What a plain user cannot make is
left out and counted.
"""

import contextlib
import errno
import os
import re
import stat
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, cast

from .archives import Forward
from .errors import RootfsError
from .file import FULL

PIECE: Final = 1 << 18
ZEROS: Final = bytes(PIECE)
LONGEST_NAME: Final = 4096  # PATH_MAX
DEEPEST: Final = 500

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

EXACT_TIME: Final = re.compile(r"(-?)([0-9]{1,11})(?:\.([0-9]{1,9})[0-9]*)?")
NANOSECONDS: Final = 10**9

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Attributes:
    mode: int
    uid: int
    gid: int
    mtime_ns: int


class Unpacker:
    """The members written so far below `target`. `tick` is called now and then, and may raise."""

    def __init__(self, target: Path, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._root = os.open(os.path.join(target, "."), FOLDER)  # its name may be a link
        self._is_root = os.geteuid() == 0
        self._folders: dict[Parts, _Attributes] = {}
        self._left_out: Counter[str] = Counter()
        # Members come folder by folder, so the last one's folder is mostly the next one's too.
        self._open_parts: Parts = ()
        self._open_folder = os.dup(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._open_folder)
        os.close(self._root)

    def notes(self) -> tuple[str, ...]:
        """What was left out or changed, and how often."""
        return tuple(f"{what}: {count}" for what, count in sorted(self._left_out.items()))

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Write one member. Raises RootfsError where its name leads out of the target."""
        parts = _parts(member.name)
        attributes = _Attributes(
            stat.S_IMODE(member.mode), member.uid, member.gid, _mtime_ns(member)
        )
        if member.isdir():
            self._folder(parts)
            self._folders[parts] = attributes
            return
        if not parts:
            raise RootfsError("the archive's root is no directory")
        folder, name = self._folder(parts[:-1]), parts[-1]
        self._remove(folder, name)
        if member.isreg():
            self._write_file(tar, member, folder, name)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=folder)
        elif member.islnk():
            self._link(member, folder, name)
            return  # its attributes are those of the file that it is
        elif not self._make_node(member, folder, name):
            return
        self._set(folder, name, attributes)

    def finish(self) -> None:
        """Give the folders their modes and times, which writing into them would have changed."""
        for parts, attributes in sorted(self._folders.items(), reverse=True):
            if not parts:
                self._set_folder(self._root, attributes)
                continue
            with contextlib.suppress(NotADirectoryError, FileNotFoundError):  # replaced since
                fd = self._walk(parts, create=False)
                try:
                    self._set_folder(fd, attributes)
                finally:
                    os.close(fd)

    def _folder(self, parts: Parts) -> int:
        """A descriptor of the folder, made where it is missing; valid until the next call."""
        if parts != self._open_parts:
            fd = self._walk(parts, create=True)
            os.close(self._open_folder)
            self._open_folder, self._open_parts = fd, parts
        return self._open_folder

    def _walk(self, parts: Parts, *, create: bool) -> int:
        fd = os.dup(self._root)
        for depth, name in enumerate(parts):
            try:
                below = self._enter(fd, name, create=create)
            except OSError as error:
                if create and error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise RootfsError(
                        f"{'/'.join(parts)!r} lies under {'/'.join(parts[: depth + 1])!r}, which "
                        "is no directory: the archive is not safe to unpack"
                    ) from error
                raise
            finally:
                os.close(fd)
            fd = below
        return fd

    def _enter(self, fd: int, name: str, *, create: bool) -> int:
        try:
            return os.open(name, FOLDER, dir_fd=fd)
        except FileNotFoundError:
            if not create:
                raise
        os.mkdir(name, 0o700, dir_fd=fd)
        new = os.open(name, FOLDER, dir_fd=fd)
        os.fchmod(new, 0o755)
        return new

    def _remove(self, folder: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            os.rmdir(name, dir_fd=folder)

    def _write_file(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, folder: int, name: str
    ) -> None:
        stored = cast("Forward", tar.fileobj)
        stored.seek(member.offset_data)
        sparse = cast("list[tuple[int, int]] | None", member.sparse)
        with os.fdopen(os.open(name, NEW_FILE, 0o600, dir_fd=folder), "wb", buffering=0) as file:
            # only what is stored: an archive of a KiB may have a file with holes of many TiB
            for start, size in sparse or [(0, member.size)]:
                position, end = start, start + size
                while position < end:
                    data = stored.content(min(PIECE, end - position))
                    if not data:
                        raise tarfile.ReadError(f"{member.name!r} ends at byte {position}")
                    if data != ZEROS[: len(data)]:
                        file.seek(position)
                        view = memoryview(data)
                        while view:
                            view = view[file.write(view) :]
                    position += len(data)
                    self._tick()
            file.truncate(member.size)

    def _link(self, member: tarfile.TarInfo, folder: int, name: str) -> None:
        target = _parts(member.linkname)
        try:
            other = self._walk(target[:-1], create=False)
            try:
                os.link(
                    target[-1], name, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False
                )
            finally:
                os.close(other)
        except (OSError, IndexError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            raise RootfsError(
                f"{member.name!r} is a hard link to {member.linkname!r}, which is no file before "
                "it in the archive"
            ) from error

    def _make_node(self, member: tarfile.TarInfo, folder: int, name: str) -> bool:
        if member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=folder)
            return True
        if not (member.ischr() or member.isblk()):
            self._left_out["entries of unknown type left out"] += 1
            return False
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        try:
            os.mknod(
                name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=folder
            )
        except PermissionError:
            self._left_out["device nodes left out, which only root can make"] += 1
            return False
        return True

    def _set(self, folder: int, name: str, attributes: _Attributes) -> None:
        """Give what is no folder its owner, mode and time; the name is never followed."""
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            path = f"/proc/self/fd/{held}"
            if self._is_root:
                os.chown(path, attributes.uid, attributes.gid)
            if not stat.S_ISLNK(os.fstat(held).st_mode):
                os.chmod(path, self._mode(attributes.mode, stat.S_IRUSR))
            os.utime(path, ns=(attributes.mtime_ns, attributes.mtime_ns))
        finally:
            os.close(held)

    def _set_folder(self, fd: int, attributes: _Attributes) -> None:
        if self._is_root:
            os.fchown(fd, attributes.uid, attributes.gid)
        os.fchmod(fd, self._mode(attributes.mode, stat.S_IRUSR | stat.S_IXUSR))
        os.utime(fd, ns=(attributes.mtime_ns, attributes.mtime_ns))

    def _mode(self, mode: int, needed: int) -> int:
        """The mode, with what a plain user needs to read it again."""
        if self._is_root or mode & needed == needed:
            return mode
        self._left_out["entries made readable to their owner"] += 1
        return mode | needed


def _parts(name: str) -> Parts:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise RootfsError(f"{name[:200]!r} leads upwards: the archive is not safe to unpack")
    if "\0" in name or len(name) > LONGEST_NAME or len(parts) > DEEPEST:
        raise RootfsError(f"{name[:200]!r}... is no name that a file can have")
    return parts


def _mtime_ns(member: tarfile.TarInfo) -> int:
    # The library keeps times as floats, too coarse for nanoseconds.
    match = EXACT_TIME.fullmatch(member.pax_headers.get("mtime", ""))
    if match is None:
        return int(float(member.mtime) * NANOSECONDS)
    seconds = int(match[2]) * NANOSECONDS + int((match[3] or "").ljust(9, "0"))
    return -seconds if match[1] else seconds
