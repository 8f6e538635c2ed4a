"""fimd's own trees, out of reach: what hides them wherever a part of the host shows them.

They are the runtime tree, and the store of unpacked layers (fimd.store), which is hidden likewise.

A sandbox shows parts of the host: /tmp by FlatImage's contract, others by permissions and bindings.
The runtime tree may lie in one of them, also under other names: its file system may be mounted
elsewhere too, and a directory may be bound. So right after each part is bound, an empty read-only
file system is laid over the tree at each place where that part shows it. What comes later can
neither see the tree nor, as bubblewrap makes what it binds over, write to it.

Nor can anybody move the tree away with a directory that it lies in, and put another one in its
place: whatever is a mount point of a namespace can't be renamed there (rename(2), EBUSY), by none
of its names, so each of these directories is bound over itself.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fimd.base.places import is_below
from fimd.mounts.table import Mount


@dataclass(frozen=True)
class Cover:
    """Where the trees are seen on the host: their own paths, resolved, and other names of them."""

    places: tuple[str, ...]

    @classmethod
    def of(cls, trees: Iterable[str], mounts: Sequence[Mount]) -> "Cover":
        """Find the places of the trees that are there by the kernel's mount table.

        May wait for any file system that the trees' own is mounted under.
        """
        found: list[str] = []
        for own in map(os.path.realpath, filter(os.path.isdir, trees)):
            found += [own, *(place for place in _other_names(own, mounts) if _shows(place, own))]
        return cls(tuple(dict.fromkeys(found)))

    def holds(self, real: str) -> bool:
        """Tell whether a path of the host, which has no links, is in one of the trees."""
        return any(is_below(real, place) for place in self.places)

    def over(
        self, real: str, target: str, own: str = "", *, option: str = "--bind", bound: str = ""
    ) -> Iterator[str]:
        """Yield what hides the trees, once bubblewrap has bound `real` over `target`.

        `real` has no links: what they lead to may be another thing by then. At the place `own`,
        where a part of the tree is to be shown, that can be written to until then; nothing of the
        host is. `option` is by which it was bound, and `bound` by which other
        path of the same directory, if so.
        """
        shown = [place for place in self.places if is_below(place, real)]
        above = {path for place in shown for path in _movable_above(place, real)}
        for path in sorted(above) if not option.startswith("--ro-") else ():
            yield from (option, _moved(path, real, bound or real), _moved(path, real, target))
        for place in shown:
            hidden = _moved(place, real, target)
            yield from ("--perms", "0755", "--tmpfs", hidden)
            yield from () if hidden == own else ("--remount-ro", hidden)


def is_hidden(place: str, words: Sequence[str], target: str, before: bool) -> bool:
    """Tell whether a place inside is an empty file system, after something was bound over `target`.

    `words` are what that was done by, and `before` whether it was one already. Each step costs
    bubblewrap some time, so that the last one is left out where it would be done again.
    """
    return ("--tmpfs", place) in pairwise(words) or (before and not is_below(place, target))


def revealed(tree: str, target: str, parts: Sequence[str], *, anew: bool) -> tuple[str, ...]:
    """Return what shows these parts of the tree inside, read-only, and nothing else of it.

    `target` is where the tree is inside, `anew` whether it is not hidden there yet.
    """
    empty = ("--perms", "0755", "--tmpfs", target) if anew else ()
    places = [f"{target}/{os.path.relpath(part, tree)}" for part in parts]
    binds = zip(parts, places, strict=True)
    shown = (word for part, place in binds for word in ("--ro-bind", part, place))
    return (*empty, *shown, "--remount-ro", target)


def _other_names(tree: str, mounts: Sequence[Mount]) -> Iterator[str]:
    """Yield where else the tree, or a part of it, could be seen by the mount table."""
    above = [mount for mount in mounts if is_below(tree, mount.mount_point)]
    if not above:
        return
    # the one that was mounted last covers the others
    home = max(enumerate(above), key=lambda found: (len(found[1].mount_point), found[0]))[1]
    inside = _moved(tree, home.mount_point, home.root)
    for mount in mounts:
        if mount.device != home.device:
            continue
        if is_below(inside, mount.root):
            yield _moved(inside, mount.root, mount.mount_point)
        elif is_below(mount.root, inside):
            yield mount.mount_point


def _movable_above(place: str, directory: str) -> Iterator[str]:
    """Yield what a place lies in below a directory, where programs might rename that."""
    above = os.path.dirname(place)
    while above != directory and is_below(above, directory):
        if _is_movable(above):
            yield above
        above = os.path.dirname(above)


def _is_movable(directory: str) -> bool:
    """Tell whether this user, or an id that is subordinate to it, could rename a directory."""
    if os.getuid() == 0:
        return True
    try:
        facts, above = os.lstat(directory), os.lstat(os.path.dirname(directory))
    except OSError:
        return True
    is_closed = not above.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    is_kept = bool(above.st_mode & stat.S_ISVTX) and facts.st_uid == 0
    return above.st_uid != 0 or not (is_closed or is_kept)


def _shows(place: str, tree: str) -> bool:
    """Tell whether a place shows a directory of the tree, rather than what covers that."""
    try:
        return os.path.isdir(place) and os.stat(place).st_dev == os.stat(tree).st_dev
    except OSError:
        return False


def _moved(path: str, directory: str, other: str) -> str:
    """Return where a path below a directory is below another one."""
    return os.path.normpath(os.path.join(other, os.path.relpath(path, directory)))
