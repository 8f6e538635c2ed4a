"""Opening a directory by a path of the user's that programs in sandboxes may be changing.

A user may name a directory by links. But what lies below /tmp, or another directory that everybody
may write, lies within the reach of every program that sees it: a link there could have been made
by one, to have something else changed in its stead, and is not followed. Nor is a directory there
used that another user has made, or a link anywhere.
"""

import errno
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from typing import Final

_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE: Final = 0o700
"""Of what is made: a program may have left set-user-ID files below, for other users to execute."""
_MOST_LINKS: Final = 40
"""As many as the kernel follows, see path_resolution(7)."""


class LinkError(OSError):
    """A part of a path is a link that must not be followed; `filename` is that part's path."""


class StrangerError(OSError):
    """A part of a path is a directory that must not be used; `filename` is that part's path."""


def open_directory(
    path: str, *, create: bool = False, owners: Collection[int] = ()
) -> tuple[int, int]:
    """Open (O_PATH) the directory that an absolute path names, and the one that holds it.

    Returns the holder's descriptor first. With `create`, directories that are missing are made.
    Raises OSError; LinkError for a link in a place that everybody may write, and StrangerError for
    what is none of the `owners`' there, where some are given; and LinkError for a link of others.
    """
    pending = path.split("/")[::-1]
    holder = at = os.open("/", _PATH | os.O_DIRECTORY)
    walked, shared, links = "", False, 0
    try:
        while pending:
            name = pending.pop()
            if name in {"", "."}:
                continue
            shared = shared or bool(os.fstat(at).st_mode & stat.S_IWOTH)
            below = _enter(at, name, create=create)
            facts = os.fstat(below)
            is_strangers = bool(owners) and facts.st_uid not in owners
            if shared and is_strangers:
                os.close(below)
                raise StrangerError(errno.EACCES, os.strerror(errno.EACCES), f"{walked}/{name}")
            if not stat.S_ISLNK(facts.st_mode):
                if holder != at:
                    os.close(holder)
                holder, at, walked = at, below, f"{walked}/{name}"
                continue
            try:
                target = os.readlink("", dir_fd=below)
            finally:
                os.close(below)
            links += 1
            if shared or is_strangers or links > _MOST_LINKS:
                raise LinkError(errno.ELOOP, os.strerror(errno.ELOOP), f"{walked}/{name}")
            pending += target.split("/")[::-1]
            if target.startswith("/"):
                for descriptor in {holder, at}:
                    os.close(descriptor)
                holder = at = os.open("/", _PATH | os.O_DIRECTORY)
                walked = ""
        if not stat.S_ISDIR(os.fstat(at).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if holder == at:
            at = os.dup(at)
    except BaseException:
        for descriptor in {holder, at}:
            os.close(descriptor)
        raise
    return holder, at


def _enter(directory: int, name: str, *, create: bool) -> int:
    try:
        return os.open(name, _PATH, dir_fd=directory)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):  # by another at the same time
        os.mkdir(name, _MODE, dir_fd=directory)
    return os.open(name, _PATH, dir_fd=directory)
