"""The inodes that the kernel knows of.

A node is identified by where it is in the tree, not by the source's inode number: fuse-overlayfs
gives files of different layers the same number, and unionfs-fuse gives a file another one when
it has forgotten it. The kernel in turn detaches what is mounted on a name whose inode changes.
The source's number is what the view shows where no other node has it.
"""

import asyncio
import errno
import os
import stat
from collections.abc import Callable

ROOT = 1
_FIRST_SPARE_NUMBER = 0x8000_0000
"""Numbers for nodes whose own is taken; 32 bits, or old 32-bit programs could not stat them."""

WEIGHTY = 1 << 20
"""From this size on (bytes), an operation that may copy a file up is worth a thread."""


_NO_CHILDREN: dict[bytes, "Node"] = {}
"""Of everything that is no directory; nothing is ever put into it."""


class Node:
    """One inode: its number, its names, and what is open of it."""

    __slots__ = (
        "children",
        "content",
        "found_again",
        "handles",
        "identity",
        "is_up",
        "kind",
        "lacks_capability",
        "links",
        "lookups",
        "number",
        "pin",
        "settling",
        "spellings",
        "suspect_until",
        "weighty",
        "writers",
    )

    def __init__(self, number: int, status: os.stat_result) -> None:
        self.number = number
        self.kind = stat.S_IFMT(status.st_mode)
        self.identity = (status.st_dev, status.st_ino)
        self.weighty = status.st_size >= WEIGHTY
        self.links: list[tuple[Node, bytes]] = []
        """Every directory and stored name that leads here; none for the root or once removed."""
        self.children: dict[bytes, Node] = {} if self.kind == stat.S_IFDIR else _NO_CHILDREN
        self.is_up = False
        """Known to be in the upper branch of a union."""
        self.lookups = 0
        self.handles: frozenset[int] = frozenset()  # one object for all that are not open
        self.writers = 0
        """How many of the handles can write."""
        self.pin: int | None = None
        """A descriptor (O_PATH) of what has no name any more."""
        self.lacks_capability = False
        """Known to have no file capabilities (an extended attribute)."""
        self.content: tuple[int, int] | None = None
        """Modification time and size when it was opened last: what the kernel's pages show."""
        self.spellings: set[tuple[int, bytes]] | None = None
        self.suspect_until = 0.0
        """Until then (monotonic seconds) who asks may have come by a name that is gone."""
        self.found_again = False
        """It has been looked up since it became suspect."""
        self.settling: asyncio.Future[None] | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.kind == stat.S_IFDIR

    @property
    def parent(self) -> "Node":
        """The directory above; the root's is the root."""
        return self.links[0][0] if self.links else self


class NodeTable:
    """All nodes that the kernel holds, and the directories above them."""

    def __init__(
        self,
        root_status: os.stat_result,
        same_file: Callable[[Node, Node, bytes], bool],
        *,
        numbers_hold: bool,
    ) -> None:
        """`same_file(node, parent, name)` tells whether a hard link's name leads to a node.

        `numbers_hold` says that the source's numbers stay and are the same for all hard links.
        """
        self.root = Node(ROOT, root_status)
        self.root.lookups = 1
        self._by_number = {ROOT: self.root}
        self._hard_links: dict[tuple[int, int], list[Node]] = {}
        self._same_file = same_file
        self._numbers_hold = numbers_hold
        self._spare_number = _FIRST_SPARE_NUMBER

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Node:
        """The node of a number; ESTALE where the kernel should not know it."""
        try:
            return self._by_number[number]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def place(self, parent: Node, name: bytes, status: os.stat_result) -> Node:
        """The node of a stored name, given what the source says of it; a new one if need be.

        A name keeps its node for as long as what it names is of one kind, except that a file
        which is open must still be the one that was opened.
        """
        identity = (status.st_dev, status.st_ino)
        kind = stat.S_IFMT(status.st_mode)
        node = parent.children.get(name)
        if node is not None:
            is_same = node.identity == identity or not node.handles or not self._numbers_hold
            if node.kind == kind and is_same:
                self._identify(node, identity, status.st_nlink)
                node.weighty = status.st_size >= WEIGHTY
                return node
            self.unlink(parent, name, None)
        if status.st_nlink > 1 and kind != stat.S_IFDIR:
            for other in self._hard_links.get(identity, ()):
                if other.kind == kind and self._same_file(other, parent, name):
                    self.link(other, parent, name)
                    return other
        node = Node(self._number_for(status), status)
        self._by_number[node.number] = node
        self.link(node, parent, name)
        self._identify(node, identity, status.st_nlink)
        return node

    def link(self, node: Node, parent: Node, name: bytes) -> None:
        """Record that a stored name leads to a node."""
        node.links.append((parent, name))
        parent.children[name] = node
        if node.pin is not None:  # it has a name again
            os.close(node.pin)
            node.pin = None

    def unlink(self, parent: Node, name: bytes, pin: int | None) -> Node | None:
        """Record that a stored name is gone; the node of it, if there is one.

        `pin` is a descriptor to reach a node by that has no other name; it is taken over, and
        closed where it is not needed.
        """
        node = parent.children.pop(name, None)
        if node is not None:
            node.links.remove((parent, name))
            if not node.links and node.pin is None and pin is not None:
                node.pin, pin = pin, None
        if pin is not None:
            os.close(pin)
        return node

    def move(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes) -> None:
        """Record a rename to a name that nothing has."""
        node = parent.children.pop(name, None)
        if node is not None:
            node.links[node.links.index((parent, name))] = (new_parent, new_name)
            new_parent.children[new_name] = node

    def exchange(self, parent: Node, name: bytes, other_parent: Node, other_name: bytes) -> None:
        """Record that two names have changed places."""
        one, other = (parent, name), (other_parent, other_name)
        node, other_node = (
            parent.children.pop(name, None),
            other_parent.children.pop(other_name, None),
        )
        if node is not None:
            node.links[node.links.index(one)] = other
            other_parent.children[other_name] = node
        if other_node is not None:
            other_node.links[other_node.links.index(other)] = one
            parent.children[name] = other_node

    def forget(self, node: Node, lookups: int) -> list[Node]:
        """Drop lookups of a node; the nodes that are gone with the last, for their pins' sake.

        A directory stays for as long as a node below it does, so that its children keep theirs.
        """
        node.lookups -= lookups
        gone = []
        candidates = [node]
        while candidates:
            node = candidates.pop()
            if (
                node.lookups > 0
                or node.children
                or node.handles
                or node.number not in self._by_number
            ):
                continue
            gone.append(node)
            candidates += (parent for parent, _ in node.links)
            self._drop(node)
        return gone

    def _drop(self, node: Node) -> None:
        del self._by_number[node.number]
        for parent, name in node.links:
            del parent.children[name]
        self._unlist(node)

    def _identify(self, node: Node, identity: tuple[int, int], links: int) -> None:
        """Note the source's number, by which the other names of a file with several are found."""
        if node.identity != identity:
            self._unlist(node)
            node.identity = identity
        if links > 1 and not node.is_directory:
            alike = self._hard_links.setdefault(identity, [])
            if node not in alike:
                alike.append(node)

    def _unlist(self, node: Node) -> None:
        alike = self._hard_links.get(node.identity)
        if alike is not None and node in alike:
            alike.remove(node)
            if not alike:
                del self._hard_links[node.identity]

    def _number_for(self, status: os.stat_result) -> int:
        number = status.st_ino
        while number <= ROOT or number in self._by_number:
            number = self._spare_number
            self._spare_number += 1
        return number
