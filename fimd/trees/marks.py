"""The marks that unionfs-fuse makes of deletions: `PATH_HIDDEN~` in a directory at the top."""

from typing import Final

UNIONFS_DIRECTORIES: Final = (b".unionfs", b".unionfs-fuse")
"""The directory, of releases after 1.0 and up to 1.0 as Debian has it."""

HIDDEN: Final = b"_HIDDEN~"
