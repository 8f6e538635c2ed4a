"""A layer's identity: the file that it lies in, where, and what it holds."""

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class LayerSource:
    """A DwarFS image in a file, embedded (`offset` > 0) or a file of its own. Sizes are bytes.

    `content` is a digest of the section headers, which hold a SHA-512/256 of every section. With
    it the identity needs no modification time: a setting written into an image, or a layer
    appended to it, leaves the layers that are there what they are, and a file overwritten in
    place is another layer.
    """

    path: str
    offset: int
    size: int
    device: int
    inode: int
    content: bytes

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits. Equal content in another file is another layer."""
        facts = f"{self.device}:{self.inode}:{self.offset}:{self.size}:{self.content.hex()}"
        return hashlib.blake2b(facts.encode(), digest_size=8).hexdigest()
