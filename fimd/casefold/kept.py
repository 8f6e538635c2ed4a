"""Files that were read and are likely to be read again, kept open.

Every program that starts opens the same libraries and closes them. To a union each of these is
three requests, which take longer than all that is read.
"""

import os

from fimd.casefold.nodes import Node


class Kept:
    """Descriptors for reading that nobody uses, one of a node: those that were used last."""

    def __init__(self, most: int) -> None:
        """Keep so many descriptors at most."""
        self._most = most
        self._descriptors: dict[Node, int] = {}

    def close(self) -> None:
        """Close them all."""
        while self._descriptors:
            self.drop(next(iter(self._descriptors)))

    def put(self, node: Node, descriptor: int) -> None:
        """Take over a descriptor of a node's file; one that is not kept is closed."""
        self.drop(node)
        self._descriptors[node] = descriptor
        if len(self._descriptors) > self._most:
            self.drop(next(iter(self._descriptors)))

    def take(self, node: Node) -> int | None:
        """Return a descriptor of a node's file, which is the caller's then."""
        return self._descriptors.pop(node, None)

    def drop(self, node: Node) -> None:
        """Keep none of a node: its file is about to be written, or to lose a name."""
        descriptor = self.take(node)
        if descriptor is not None:
            os.close(descriptor)
