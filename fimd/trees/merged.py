"""The tree that several layers show together, read from their metadata without mounting them."""

import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from fimd.base.errors import BadLayerError
from fimd.dwarfs.errors import DamagedError, DwarfsError
from fimd.dwarfs.reader import LONGEST_PATH, Image
from fimd.dwarfs.tree import Attributes
from fimd.layers.place import LayerPlace

# Contents are read one file after another, in the order of their blocks.
_CACHE_BYTES: Final = 64 << 20


@contextmanager
def open_layers(places: Sequence[LayerPlace]) -> Iterator[list[Image]]:
    """Open layers, base first. Raises BadLayerError for one that can't be read."""
    with ExitStack() as stack:
        images = []
        for place in places:
            try:
                image = Image.open(
                    place.path if place.descriptor is None else place.descriptor,
                    place.offset,
                    place.size,
                    cache_bytes=_CACHE_BYTES,
                    name=place.path,
                )
            except OSError as error:
                raise BadLayerError(f"layer {place.path}: {error.strerror}") from error
            except DwarfsError as error:
                raise BadLayerError(f"layer {place.path}: {error}") from error
            images.append(stack.enter_context(image))
        yield images


def is_whiteout(mode: int, rdev: int) -> bool:
    """Tell whether an entry stands for a deletion: a character device 0:0."""
    return stat.S_ISCHR(mode) and rdev == 0


@dataclass(frozen=True, slots=True)
class Node:
    """What a path is: the inodes of it, the topmost first; only directories have several.

    `opaque` says that something below was cut off: a deletion, or what is no directory.
    """

    parts: tuple[tuple[Image, int], ...]
    opaque: bool = False

    @property
    def attributes(self) -> Attributes:
        """The attributes that one sees: the topmost's."""
        image, inode = self.parts[0]
        return image.stat(inode)

    @property
    def is_directory(self) -> bool:
        """Whether the path has names below it."""
        image, inode = self.parts[0]
        return image.tree.is_directory(inode)

    def child(self, name: bytes) -> "Node | None":
        """What a name in this directory is, None where there is none or it is deleted."""
        found: list[tuple[Image, int]] = []
        if not self.is_directory:
            return None
        for image, inode in self.parts:
            child = image.lookup(inode, name)
            if child is None:
                continue
            is_directory = image.tree.is_directory(child)
            if is_directory or (not found and not _is_whiteout(image, child)):
                found.append((image, child))
            if not is_directory:
                return Node(tuple(found), opaque=True) if found else None
        return Node(tuple(found), self.opaque) if found else None

    def names(self) -> tuple[set[bytes], set[bytes]]:
        """The names that are in this directory, and those that are deleted in it."""
        present: set[bytes] = set()
        deleted: set[bytes] = set()
        for image, inode in self.parts if self.is_directory else ():
            for name, child in image.readdir(inode):
                if name not in present and name not in deleted:
                    (deleted if _is_whiteout(image, child) else present).add(name)
        return present, deleted


def _is_whiteout(image: Image, inode: int) -> bool:
    if image.tree.is_directory(inode) or image.tree.is_file(inode):
        return False
    attributes = image.stat(inode)
    return is_whiteout(attributes.mode, attributes.rdev)


class Merged:
    """Layers as one tree. Paths are relative to the root, which is b""."""

    def __init__(self, layers: Sequence[Image]) -> None:
        """`layers` are in order, base first, and stay the caller's."""
        parts = tuple((image, image.root) for image in reversed(layers))
        self._nodes: dict[bytes, Node | None] = {b"": Node(parts) if parts else None}

    def find(self, path: bytes) -> Node | None:
        """What a path is, None where there is nothing."""
        unknown = []
        while path not in self._nodes:
            unknown.append(path)
            path = path.rpartition(b"/")[0]
        node = self._nodes[path]
        for below in reversed(unknown):  # a path may have thousands of parts
            node = self._nodes[below] = node.child(below.rpartition(b"/")[2]) if node else None
        return node

    def is_directory(self, path: bytes) -> bool:
        """Tell whether a path is a directory."""
        node = self.find(path)
        return node is not None and node.is_directory

    def names(self, path: bytes) -> set[bytes]:
        """The names in a directory; none where it is no directory."""
        node = self.find(path)
        return node.names()[0] if node else set()

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every path with what it is, parents first; the root first of all.

        Raises DamagedError for what is no tree (where directories lead back to each other it has
        more names than all layers together), or longer than LONGEST_PATH.
        """
        root = self._nodes[b""]
        pending = [(b"", root)] if root else []
        left = sum(image.metadata.entry_count for image, _ in root.parts) if root else 0
        while pending:
            path, node = pending.pop()
            top = node.parts[0][0].source.name
            left -= 1
            if left < 0:
                raise DamagedError("directories share their entries", path=top)
            if len(path) > LONGEST_PATH:
                raise DamagedError(f"a path has more than {LONGEST_PATH} bytes", path=top)
            yield path, node
            for name in sorted(node.names()[0], reverse=True):
                child = node.child(name)
                if child is not None:
                    pending.append((join(path, name), child))


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory."""
    return directory + b"/" + name if directory else name
