"""An image's data directory: FIM_DIR_DATA.

    root/      the upper directory, plain files that the user may edit between commands
    work/      what the overlay backends need beside it
    layers/    managed layers, mounted on every run
    casefold/  kept for FlatImage's users; the view itself is mounted in the runtime tree
    tmp/       temporary files of commits, and of the user

FlatImage 1.x has .NAME.config/overlays/upperdir beside the image instead of root/. Where an image
of 1.x has one, root/ is a link to it, so that both show the same changes.

A program in a sandbox that sees the directory may exchange any part of it at any moment. So each
part is opened by descriptor, and is no link but for that one; and what is in them is touched in a
jail alone (fimd.mounts.jail).

Everything here touches the user's filesystem and is called from a thread.
"""

import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Self

from fimd.base.errors import DataDirectoryError
from fimd.base.places import beside, data_directory
from fimd.base.resolve import LinkError, StrangerError, open_directory
from fimd.commits.opened import DIRECTORY, PARTS, OpenData
from fimd.flatimage.errors import ImageError
from fimd.flatimage.file import open_image
from fimd.flatimage.layout import Kind, find_layout

_PATH: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DATA: Final = re.compile(r"\.(.+)\.data", re.DOTALL)
_UPPER: Final = "root"
_FORMER_UPPER: Final = "upperdir"


def is_former(image: str) -> bool:
    """Tell whether a file is an image of FlatImage 1.x."""
    try:
        with open_image(image) as descriptor:
            return find_layout(descriptor).kind is Kind.ELF_V1
    except ImageError:
        return False


@contextmanager
def opened_upper(image: str, path: str) -> Iterator[int | None]:
    """Open the upper directory of an image for reading; None where there is none yet.

    `image` is a real path, `path` the data directory's, which is found out before: in the user's
    namespace another one could be written. Raises DataDirectoryError where it may not be used.
    """
    with ExitStack() as stack, _explained(path):
        found = _find_upper(path, stack) or _find_former(image, path, stack)
        descriptor = None
        if found:
            holder, name = found
            descriptor = _kept(stack, _open(holder, name, DIRECTORY, os.path.join(path, _UPPER)))
        yield descriptor


@dataclass(frozen=True)
class DataDirectory:
    """A data directory that exists and can be written. `device` and `inode` are those of root/."""

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, image: str, given: str | None) -> Self:
        """Make the one of an image; `given` is its path, where it is not the image's own.

        Raises DataDirectoryError.
        """
        path = given or data_directory(image)
        with ExitStack() as stack, _explained(path):
            if _find_upper(path, stack) is None and _find_former(image, path, stack):
                _, directory = _directory(path, stack, create=True)
                with suppress(FileExistsError):
                    os.symlink(_former_target(path), _UPPER, dir_fd=directory)
        return cls.open(path)

    @classmethod
    def open(cls, path: str) -> Self:
        """Make the directories that are missing. Raises DataDirectoryError."""
        with ExitStack() as stack, _explained(path):
            parent, directory = _directory(path, stack, create=True, owners=(os.geteuid(), 0))
            found = _find_upper(path, stack, (parent, directory))
            for name in PARTS:
                if name != _UPPER or found is None:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=directory)
            holder, name = found or (directory, _UPPER)
            upper = _kept(stack, _open(holder, name, _PATH, os.path.join(path, _UPPER)))
            for part in PARTS:
                if part != _UPPER:
                    where = os.path.join(path, part)
                    used = _kept(stack, _open(directory, part, _PATH, where))
                    if part in {"tmp", "work"}:
                        _check_writable(used, where)
            facts = os.fstat(upper)
            if facts.st_uid != os.geteuid():  # the own one's mode keeps the namespace from nothing
                _check_writable(upper, os.path.join(path, _UPPER))
            return cls(path, facts.st_dev, facts.st_ino)

    @contextmanager
    def opened(self, *, unchanged: bool = True) -> Iterator[OpenData]:
        """Hold it open. Raises DataDirectoryError, also where its upper is another by now.

        Unless `unchanged` is false: for what has nothing to do with the upper.
        """
        with ExitStack() as stack, _explained(self.path):
            parent, at = _directory(self.path, stack)
            directory = _kept(stack, os.open(".", DIRECTORY, dir_fd=at))
            found = _find_upper(self.path, stack, (parent, directory))
            holder, name = found or (directory, _UPPER)
            parts = [
                _kept(stack, _open(directory, part, DIRECTORY, os.path.join(self.path, part)))
                for part in ("tmp", "work", "layers")
            ]
            opened = OpenData(self.path, directory, holder, name, *parts)
            if unchanged:
                facts = os.stat(name, dir_fd=holder, follow_symlinks=False)
                if (facts.st_dev, facts.st_ino) != (self.device, self.inode):
                    raise DataDirectoryError(
                        f"{opened.root} is another directory than it was: try again"
                    )
            yield opened

    def passed_over(self, image: str) -> list[str]:
        """Return a sentence where this user has changes beside the image that can't be used."""
        former = os.path.join(beside(image), _UPPER)
        if self.path != data_directory(image) or self.path == beside(image):
            return []
        try:
            descriptor = os.open(former, DIRECTORY)
        except OSError:
            return []
        try:
            if os.fstat(descriptor).st_uid != os.getuid() or not os.listdir(descriptor):
                return []
        finally:
            os.close(descriptor)
        return [
            f"the changes in {former} are left out, since it can't be written: those made now are "
            f"kept in {self.root}"
        ]

    @property
    def root(self) -> str:
        """The upper directory."""
        return os.path.join(self.path, _UPPER)

    def work(self, name: str) -> str:
        """The directory of an overlay, which `fimd.stacks.prepare` makes."""
        return os.path.join(self.path, "work", name)

    @property
    def layers(self) -> str:
        """FIM_DIR_LAYERS, the managed layers."""
        return os.path.join(self.path, "layers")


def _kept(stack: ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _directory(
    path: str, stack: ExitStack, *, create: bool = False, owners: Collection[int] = ()
) -> tuple[int, int]:
    """Open a data directory, and before it the directory that it lies in."""
    holder, directory = open_directory(path, create=create, owners=owners)
    return _kept(stack, holder), _kept(stack, directory)


def _open(directory: int, name: str, flags: int, path: str) -> int:
    """Open a part of a data directory, which may not be a link."""
    try:
        return os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise LinkError(error.errno, error.strerror, path) from error
        raise


def _find_upper(
    path: str, stack: ExitStack, opened: tuple[int, int] | None = None
) -> tuple[int, str] | None:
    """Return the directory that the upper lies in, and its name there; None where there is none."""
    try:
        parent, directory = opened or _directory(path, stack)
        target = os.readlink(_UPPER, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return directory, _UPPER  # it is no link
    holder = None if target != _former_target(path) else _open_former(parent, path, stack)
    if holder is None:
        raise LinkError(errno.ELOOP, os.strerror(errno.ELOOP), os.path.join(path, _UPPER))
    return holder, _FORMER_UPPER


def _find_former(image: str, path: str, stack: ExitStack) -> tuple[int, str] | None:
    """Return the same for the upper that a FlatImage 1.x has, where one is there to be used."""
    if path != beside(image):
        return None
    try:
        parent = _kept(stack, os.open(os.path.dirname(image), _PATH))
        holder = _open_former(parent, path, stack)
        if holder is None:
            return None
        upper = _kept(stack, os.open(_FORMER_UPPER, _PATH, dir_fd=holder))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    is_writable = os.access(".", os.W_OK | os.X_OK, dir_fd=upper, effective_ids=True)
    return (holder, _FORMER_UPPER) if is_writable and is_former(image) else None


def _former_target(path: str) -> str:
    """Return what root/ is a link to in the data directory of a FlatImage 1.x; "" in no other."""
    match = _DATA.fullmatch(os.path.basename(path))
    return "" if match is None else f"../.{match[1]}.config/overlays/{_FORMER_UPPER}"


def _open_former(parent: int, path: str, stack: ExitStack) -> int | None:
    """Open the directory that the upper of a FlatImage 1.x lies in; it may not be a link."""
    match = _DATA.fullmatch(os.path.basename(path))
    if match is None:
        return None
    config = _kept(stack, os.open(f".{match[1]}.config", _PATH, dir_fd=parent))
    return _kept(stack, os.open("overlays", DIRECTORY, dir_fd=config))


def _check_writable(descriptor: int, path: str) -> None:
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except LinkError as error:
        raise DataDirectoryError(
            f"{error.filename} is a link or no directory, and what others, or programs in "
            "sandboxes, may have put there is not followed: name the real directory by "
            "FIM_DIR_DATA, or mount it there"
        ) from error
    except StrangerError as error:
        raise DataDirectoryError(
            f"{error.filename} lies where everybody may write, and another user has made it: name "
            "a directory of your own by FIM_DIR_DATA"
        ) from error
    except OSError as error:
        raise DataDirectoryError(
            f"the data directory {path} can't be written ({error.strerror}): set FIM_DIR_DATA to "
            f"a directory that can"
        ) from error
