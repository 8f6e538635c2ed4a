"""An image's data directory: FIM_DIR_DATA.

    root/      the upper directory, plain files that the user may edit between commands
    work/      what the overlay backends need beside it
    layers/    managed layers, mounted on every run
    casefold/  kept for FlatImage's users; the view itself is mounted in the runtime tree
    tmp/       temporary files of commits, and of the user

Everything here touches the user's filesystem and is called from a thread.
"""

import os
import shutil
import stat
from dataclasses import dataclass
from typing import Self

from fimd.errors import DataDirectoryError


@dataclass(frozen=True)
class DataDirectory:
    """A data directory that exists and can be written. `device` and `inode` are those of root/."""

    path: str
    device: int
    inode: int

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
