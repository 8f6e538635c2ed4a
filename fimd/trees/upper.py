"""An upper directory, whatever overlay left it: what was added, and what was deleted.

Every backend writes deletions its own way, and an upper may have seen several backends:

- kernel overlayfs: a character device 0:0 in place of a name; a directory that hides the lower
  one (an opaque one) has the attribute overlay.opaque = y
  (https://docs.kernel.org/filesystems/overlayfs.html).
- fuse-overlayfs: the same, or a file `.wh.NAME`; an opaque directory has the attribute
  fuseoverlayfs.opaque as well, and holds `.wh..wh..opq` or `.wh..opq`.
- unionfs-fuse: in a directory at the top, `PATH_HIDDEN~` for a deleted PATH. Where PATH exists
  again as a directory, the lower one stays hidden.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from fimd.dwarfs.write import Entry, PackError, SourceTree
from fimd.dwarfs.write.entries import printable
from fimd.trees import attributes
from fimd.trees.marks import HIDDEN, UNIONFS_DIRECTORIES
from fimd.trees.merged import is_whiteout
from fimd.trees.placeholders import placeholders

WHITEOUT_PREFIX: Final = b".wh."
OPAQUE_NAMES: Final = (b".wh..wh..opq", b".wh..opq")
OPAQUE_XATTRS: Final = frozenset(
    f"{space}.{name}"
    for space in ("user", "trusted")
    for name in ("overlay.opaque", "fuseoverlayfs.opaque")
)
# An entry with one of these is not what it seems: its content or its name is in a lower layer.
_INDIRECT: Final = re.compile(r"(user|trusted)\.overlay\.(redirect|metacopy)$")
# A file that was removed while it was open (libfuse, lib/fuse.c: hidden_name).
_OPEN_AND_REMOVED: Final = re.compile(rb"\.fuse_hidden[0-9a-f]{16}")


@dataclass(frozen=True)
class Upper:
    """What an upper directory says. Paths are relative to it.

    Attributes:
        entries: what is there, without any mark.
        whiteouts: deleted names, in directories that are among the entries.
        opaque: directories among the entries, which hide the lower ones.
        hidden: unionfs's marks, and the placeholders of a start: a path that is not among the
            entries is deleted where there is one below, a directory that is among them is opaque,
            and for the rest they mean nothing.
        attributes: how many entries have an extended attribute, by its name.
    """

    entries: list[Entry]
    whiteouts: set[bytes] = field(default_factory=set)
    opaque: set[bytes] = field(default_factory=set)
    hidden: set[bytes] = field(default_factory=set)
    attributes: Counter[str] = field(default_factory=Counter)

    @property
    def has_marks(self) -> bool:
        """Whether what it means depends on the layers below."""
        return bool(self.whiteouts or self.opaque or self.hidden)


def read_upper(tree: SourceTree, scanned: Iterable[Entry]) -> Upper:
    """Understand what a scan of an upper directory found.

    Raises PackError for what can't be read, or can't be understood without the layers below.
    """
    upper = Upper([])
    for entry in scanned:
        _add(upper, entry)
    made = placeholders(upper.entries)
    upper.hidden.update(made)
    upper.entries[:] = [entry for entry in upper.entries if entry.path not in made]
    for entry in upper.entries:
        if entry.is_file or entry.is_directory:  # others can have none that a user sets
            _read_attributes(upper, tree, entry)
    return upper


def _add(upper: Upper, entry: Entry) -> None:
    directory, _, name = entry.path.rpartition(b"/")
    if entry.path.partition(b"/")[0] in UNIONFS_DIRECTORIES:
        if name.endswith(HIDDEN):
            _, _, marked = entry.path.partition(b"/")
            upper.hidden.add(marked.removesuffix(HIDDEN))
        return
    device = is_whiteout(entry.mode, entry.rdev)
    if device or (entry.is_file and entry.size == 0):
        if name in OPAQUE_NAMES:
            upper.opaque.add(directory)
            return
        deleted = name.removeprefix(WHITEOUT_PREFIX)
        if device or deleted != name:
            upper.whiteouts.add(entry.path.removesuffix(name) + deleted)
            return
    if not (entry.is_file and _OPEN_AND_REMOVED.fullmatch(name)):
        upper.entries.append(entry)


def _read_attributes(upper: Upper, tree: SourceTree, entry: Entry) -> None:
    with tree.open(entry) as descriptor:
        for name in attributes.names(descriptor):
            if _INDIRECT.fullmatch(name):
                raise PackError(
                    f"its {name} says that a lower layer has a part of it, which can't be "
                    "committed: copy it inside the sandbox, remove it, and give the copy its name",
                    path=printable(entry.path),
                )
            if name in OPAQUE_XATTRS:
                if os.getxattr(descriptor, name) == b"y":
                    upper.opaque.add(entry.path)
            elif attributes.is_lost(name):
                upper.attributes[name] += 1
