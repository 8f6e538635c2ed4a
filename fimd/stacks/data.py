"""An image's data directory: FIM_DIR_DATA.

    root/      the upper directory, plain files that the user may edit between commands
    work/      what the overlay backends need beside it
    layers/    managed layers, mounted on every run
    casefold/  kept for FlatImage's users; the view itself is mounted in the runtime tree
    tmp/       temporary files of commits, and of the user

FlatImage 1.x has .NAME.config/overlays/upperdir beside the image instead of root/. Where an image
of 1.x has one, root/ is a link to it, so that both show the same changes.

Everything here touches the user's filesystem and is called from a thread.
"""

import os
import shutil
import stat
from dataclasses import dataclass
from typing import Self

from fimd.base.errors import DataDirectoryError
from fimd.base.places import beside, data_directory
from fimd.flatimage.errors import ImageError
from fimd.flatimage.file import open_image
from fimd.flatimage.layout import Kind, find_layout


def upper_of(image: str, given: str | None) -> str:
    """Return the upper directory of an image, whether it is there yet or not.

    `image` is a real path, `given` the data directory where that is not the image's own.
    """
    root = os.path.join(given or data_directory(image), "root")
    return (given is None and _former_upper(image, root)) or root


def _former_upper(image: str, root: str) -> str | None:
    """Return the upper that an image of FlatImage 1.x has instead of `root`, which is missing."""
    directory, name = os.path.split(image)
    former = os.path.join(directory, f".{name}.config", "overlays", "upperdir")
    if os.path.lexists(root) or not os.path.isdir(former):
        return None
    return former if is_former(image) and os.access(former, os.W_OK | os.X_OK) else None


def is_former(image: str) -> bool:
    """Tell whether a file is an image of FlatImage 1.x."""
    try:
        with open_image(image) as descriptor:
            return find_layout(descriptor).kind is Kind.ELF_V1
    except ImageError:
        return False


@dataclass(frozen=True)
class DataDirectory:
    """A data directory that exists and can be written. `device` and `inode` are those of root/."""

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, image: str, given: str | None) -> Self:
        """Make the one of an image, as `upper_of` takes it. Raises DataDirectoryError."""
        if given is not None:
            return cls.open(given)
        path = data_directory(image)
        root = os.path.join(path, "root")
        former = _former_upper(image, root)
        if former is not None:
            try:
                os.makedirs(path, exist_ok=True)
                os.symlink(os.path.relpath(former, path), root)
            except OSError as error:
                raise DataDirectoryError(
                    f"{root} can't be made a link to {former}: {error.strerror}"
                ) from error
        return cls.open(path)

    @classmethod
    def open(cls, path: str) -> Self:
        """Make the directories that are missing. Raises DataDirectoryError."""
        try:
            for name in ("", "tmp", "root", "work", "layers", "casefold"):
                os.makedirs(os.path.join(path, name), exist_ok=True)
            root = os.path.join(path, "root")
            facts = os.stat(root)
            writable = os.access(root, os.W_OK | os.X_OK) and os.access(
                os.path.join(path, "work"), os.W_OK | os.X_OK
            )
        except OSError as error:
            raise DataDirectoryError(
                f"the data directory {path} can't be written ({error.strerror}): set FIM_DIR_DATA "
                f"to a directory that can"
            ) from error
        if not writable:
            raise DataDirectoryError(
                f"the data directory {path} can't be written: set FIM_DIR_DATA to a directory "
                f"that can"
            )
        return cls(path, facts.st_dev, facts.st_ino)

    def passed_over(self, image: str) -> list[str]:
        """Return a sentence where this user has changes beside the image that can't be used."""
        former = os.path.join(beside(image), "root")
        try:
            if os.stat(former).st_uid != os.getuid() or not os.listdir(former):
                return []
        except OSError:
            return []
        if self.path != data_directory(image) or self.path == beside(image):
            return []
        return [
            f"the changes in {former} are left out, since it can't be written: those made now are "
            f"kept in {self.root}"
        ]

    @property
    def root(self) -> str:
        """The upper directory."""
        return os.path.join(self.path, "root")

    @property
    def layers(self) -> str:
        """FIM_DIR_LAYERS, the managed layers."""
        return os.path.join(self.path, "layers")

    def work(self, name: str) -> str:
        """Make a fresh directory for an overlay backend to work in, and return it.

        One that another backend has used would be refused.
        """
        path = os.path.join(self.path, "work", name)
        remove_work(path)
        os.mkdir(path, 0o700)
        return path


def remove_work(path: str) -> None:
    """Remove an overlay's work directory; kernel overlayfs leaves one of mode 000 in it."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if (
                    entry.is_dir(follow_symlinks=False)
                    and not entry.stat(follow_symlinks=False).st_mode & stat.S_IRWXU
                ):
                    os.chmod(entry.path, stat.S_IRWXU)
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
