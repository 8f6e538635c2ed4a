"""The one form that deletions have in a layer, which every backend can read.

A character device 0:0 stands in place of each deleted name. A directory that hides the lower one
holds such a device for every lower name that it hides, since DwarFS has no extended attributes.
"""

import stat

from fimd.dwarfs.write import Entry
from fimd.trees.merged import Merged, join
from fimd.trees.upper import Upper


def canonical(upper: Upper, lower: Merged) -> list[Entry]:
    """Return the entries of a layer that shows over `lower` what the upper shows.

    Marks that hide nothing are left out, because kernel overlayfs would list them where no lower
    directory is.
    """
    entries = {entry.path: entry for entry in upper.entries}
    opaque = set(upper.opaque)
    whiteouts = {path for path in upper.whiteouts if path not in entries}
    for path in sorted(upper.hidden):
        entry = entries.get(path)
        if entry is None:
            whiteouts.add(path)
        elif entry.is_directory:
            opaque.add(path)
    hidden = _expand(opaque, entries, lower)
    deleted = whiteouts | hidden
    for path in sorted(whiteouts):
        if _is_covered(path, entries, deleted):
            continue
        directory = path.rpartition(b"/")[0]
        if lower.is_directory(directory) and (
            path in upper.whiteouts or lower.find(path) is not None
        ):
            hidden.add(path)
    for path in hidden:
        _add_directories(path.rpartition(b"/")[0], entries, lower)
    for path in hidden:
        parent = entries[path.rpartition(b"/")[0]]
        entries[path] = Entry(path, stat.S_IFCHR, parent.uid, parent.gid, parent.mtime_ns)
    return list(entries.values())


def _expand(opaque: set[bytes], entries: dict[bytes, Entry], lower: Merged) -> set[bytes]:
    """The lower names that opaque directories hide."""
    hidden: set[bytes] = set()
    pending = list(opaque)
    done: set[bytes] = set()
    while pending:
        directory = pending.pop()
        if directory in done:
            continue
        done.add(directory)
        for name in lower.names(directory):
            path = join(directory, name)
            entry = entries.get(path)
            if entry is None:
                hidden.add(path)
            elif entry.is_directory:
                pending.append(path)
    return hidden


def _is_covered(path: bytes, entries: dict[bytes, Entry], deleted: set[bytes]) -> bool:
    """Whether a directory above is deleted as well, or is no directory any more."""
    directory = path.rpartition(b"/")[0]
    while directory:
        if directory in deleted:
            return True
        entry = entries.get(directory)
        if entry is not None and not entry.is_directory:
            return True
        directory = directory.rpartition(b"/")[0]
    return False


def _add_directories(path: bytes, entries: dict[bytes, Entry], lower: Merged) -> None:
    """Add the lower directories that a deletion lies in: unionfs marks it without them."""
    while path not in entries:
        node = lower.find(path)
        assert node is not None  # the deletion's directory is there, and so are those above it
        facts = node.attributes
        entries[path] = Entry(path, facts.mode, facts.uid, facts.gid, facts.mtime_ns)
        path = path.rpartition(b"/")[0]
