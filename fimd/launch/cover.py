"""The runtime tree, out of reach: what hides it wherever a part of the host shows it.

A sandbox shows parts of the host: /tmp by FlatImage's contract, others by permissions and bindings.
The runtime tree may lie in one of them, also under other names: its file system may be mounted
elsewhere too, and a directory may be bound. So right after each part is bound, an empty read-only
file system is laid over the tree at each place where that part shows it. What comes later can
neither see the tree nor, as bubblewrap makes what it binds over, write to it.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fimd.mounts.table import Mount


@dataclass(frozen=True)
class Cover:
    """Where the runtime tree is seen on the host: its own path, resolved, and other names of it."""

    places: tuple[str, ...]

    @classmethod
    def of(cls, tree: str, mounts: Sequence[Mount]) -> "Cover":
        """Find the tree's places by the kernel's mount table.

        May wait for any file system that the tree's own is mounted under.
        """
        own = os.path.realpath(tree)
        found = [own, *(place for place in _other_names(own, mounts) if _shows(place, own))]
        return cls(tuple(dict.fromkeys(found)))

    def holds(self, source: str) -> bool:
        """Tell whether a path of the host leads into the tree."""
        real = os.path.realpath(source)
        return any(_below(real, place) for place in self.places)

    def over(self, source: str, target: str) -> Iterator[str]:
        """Yield what hides the tree, once bubblewrap has bound `source` over `target`."""
        real = os.path.realpath(source)
        if not os.path.isdir(real):
            return  # it shows no tree, or it is not there and won't be bound
        for place in self.places:
            if _below(place, real):
                yield from hidden(_moved(place, real, target))


def hidden(place: str) -> tuple[str, ...]:
    """Return what makes a place inside an empty directory, for good."""
    return ("--perms", "0700", "--tmpfs", place, "--remount-ro", place)


def revealed(tree: str, target: str, parts: Sequence[str]) -> tuple[str, ...]:
    """Return what shows these parts of the tree inside, read-only, and nothing else of it.

    `target` is where the tree is inside.
    """
    places = [f"{target}/{os.path.relpath(part, tree)}" for part in parts]
    binds = zip(parts, places, strict=True)
    shown = (word for part, place in binds for word in ("--ro-bind", part, place))
    return ("--perms", "0755", "--tmpfs", target, *shown, "--remount-ro", target)


def _other_names(tree: str, mounts: Sequence[Mount]) -> Iterator[str]:
    """Yield where else the tree, or a part of it, could be seen by the mount table."""
    above = [mount for mount in mounts if _below(tree, mount.mount_point)]
    if not above:
        return
    # the one that was mounted last covers the others
    home = max(enumerate(above), key=lambda found: (len(found[1].mount_point), found[0]))[1]
    inside = _moved(tree, home.mount_point, home.root)
    for mount in mounts:
        if mount.device != home.device:
            continue
        if _below(inside, mount.root):
            yield _moved(inside, mount.root, mount.mount_point)
        elif _below(mount.root, inside):
            yield mount.mount_point


def _shows(place: str, tree: str) -> bool:
    """Tell whether a place shows a directory of the tree, rather than what covers that."""
    try:
        return os.path.isdir(place) and os.stat(place).st_dev == os.stat(tree).st_dev
    except OSError:
        return False


def _moved(path: str, directory: str, other: str) -> str:
    """Return where a path below a directory is below another one."""
    return os.path.normpath(os.path.join(other, os.path.relpath(path, directory)))


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
