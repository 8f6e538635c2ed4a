"""Removing trees that others have written: of any depth, with names of any kind, and nothing else.

Everything is done by the descriptor of the directory that holds a name, with that one name, and
never by a link; no path is ever made, and `..`, which may lead elsewhere once a directory has been
moved, is not used. What is mounted in the tree stays.

A directory is emptied without going down into it: each directory that it holds is moved up to the
top of the tree, under a name that nobody else knows, and has its turn there. So neither descriptors
nor memory depend on the depth, and each directory is moved once.
"""

import errno
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from fimd.base.system_calls import open_without_mounts

_PATIENCE: Final = 1000
"""How often an entry may turn from a directory into something else between two calls."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(directory: int, name: str | bytes) -> None:
    """Remove what has this name in an open directory, with all that it holds, if it is there.

    What may be removed is, whatever modes its directories have; then this raises OSError where
    something had to stay: another user's, or a mount.
    """
    name = os.fsencode(name)
    for tries in itertools.count(1):
        try:
            _remove_tree(directory, name)
        except NotADirectoryError:  # somebody exchanges it while we look
            if tries > _PATIENCE:
                raise
        else:
            return


def _remove_tree(directory: int, name: bytes) -> None:
    try:
        if _unlink(directory, name):
            return
        top = _open(directory, name)
    except FileNotFoundError:
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=directory)


def empty_directory(directory: int) -> None:
    """Remove all that an open directory holds, as `remove_tree` does."""
    top = os.open(".", _DIRECTORY, dir_fd=directory)
    try:
        _empty(top)
    finally:
        os.close(top)


def _empty(top: int) -> None:
    token = secrets.token_hex(8)
    names = (os.fsencode(f"fimd-{token}-{number}") for number in itertools.count())
    exchanged = 0
    while True:
        removed = 0
        reason: OSError | None = None
        with os.scandir(top) as entries:
            for entry in entries:
                try:
                    _remove(top, os.fsencode(entry.name), names)
                    removed += 1
                except NotADirectoryError as error:
                    reason = error
                    exchanged += 1
                    removed += exchanged <= _PATIENCE
                except OSError as error:
                    reason = error
        if removed:
            continue  # what was moved up
        if reason is not None:
            raise reason
        return


def _remove(top: int, name: bytes, names: Iterator[bytes]) -> None:
    """Remove an entry of the top, and move the directories that it holds there, by new names.

    Raises OSError where something had to stay in it.
    """
    try:
        if _unlink(top, name):
            return
        directory = _open(top, name)
    except FileNotFoundError:
        return
    reason: OSError | None = None
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                below = os.fsencode(entry.name)
                try:
                    if not _unlink(directory, below) and not _rmdir(directory, below):
                        _move_up(directory, below, top, next(names))
                except OSError as error:
                    reason = reason or error
    finally:
        os.close(directory)
    if not _rmdir(top, name) and reason is not None:
        raise reason


def _unlink(directory: int, name: bytes) -> bool:
    """Remove what is no directory; tell whether it is gone."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        return False
    except FileNotFoundError:
        pass
    return True


def _rmdir(directory: int, name: bytes) -> bool:
    """Remove a directory, unless something is in it; tell whether it is gone."""
    try:
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        return False
    return True


def _move_up(directory: int, name: bytes, top: int, new: bytes) -> None:
    try:
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)
    except PermissionError:  # what is moved has to be writable, for its `..` changes
        _unlock(directory, name)
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)


def _open(directory: int, name: bytes) -> int:
    """Open a directory so that what it holds can be removed."""
    try:
        descriptor = open_without_mounts(directory, name, _DIRECTORY)
    except PermissionError:
        _unlock(directory, name)
        descriptor = open_without_mounts(directory, name, _DIRECTORY)
    if os.fstat(descriptor).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        with suppress(OSError):
            os.fchmod(descriptor, stat.S_IRWXU)
    return descriptor


def _unlock(directory: int, name: bytes) -> None:
    """Let its owner into a directory that has a mode which does not.

    Who may pass over modes, as one in a jail, never needs it; for all others there is a /proc.
    """
    held = os.open(
        name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory
    )
    try:
        os.chmod(f"/proc/self/fd/{held}", stat.S_IRWXU)
    finally:
        os.close(held)
