"""A directory as it is listed."""

import stat

import pyfuse3

from fimd.casefold.attributes import entry
from fimd.casefold.nodes import Node
from fimd.casefold.spellings import Spellings
from fimd.casefold.tree import Tree
from fimd.casefold.types import FileNameT, InodeT, ModeT


class Listing:
    """One open directory: its names as they were when it was read from the start.

    A position is an index into these, so no name comes twice or is left out when others come and
    go; a name that is gone by the time it is sent is passed over.
    """

    def __init__(self, node: Node, tree: Tree, spellings: Spellings) -> None:
        self.node = node
        self._tree = tree
        self._spellings = spellings
        self._names: list[bytes] = []

    async def send(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        """Answer a request for the entries from a position on, as many as fit."""
        if start == 0:
            self._names = [b".", b"..", *await self._tree.names(self.node)]
        for position in range(start, len(self._names)):
            name = self._names[position]
            fits = (
                self._send_dots(name, position, token)
                if position < 2
                else self._send_entry(name, position, token)
            )
            if not fits:
                break

    def _send_dots(self, name: bytes, position: int, token: pyfuse3.ReaddirToken) -> bool:
        attributes = pyfuse3.EntryAttributes()
        node = self.node if name == b"." else self.node.parent
        attributes.st_ino = InodeT(node.number)
        attributes.st_mode = ModeT(stat.S_IFDIR)
        return pyfuse3.readdir_reply(token, FileNameT(name), attributes, position + 1)

    def _send_entry(self, name: bytes, position: int, token: pyfuse3.ReaddirToken) -> bool:
        found = self._tree.look(self.node, name)
        if found is None:
            return True
        node = self._tree.place(self.node, found)
        attributes = entry(node, found.status, self._spellings.grant(node, self.node, name, name))
        fits = pyfuse3.readdir_reply(token, FileNameT(name), attributes, position + 1)
        if fits:
            node.lookups += 1
        else:
            self._tree.forget(node, 0)
        return fits
