"""Several layers made one, which shows the same tree over the layers below."""

import os
import time
from collections.abc import Sequence

from fimd.commits.compare import check_equal
from fimd.commits.newfile import NewFile
from fimd.commits.work import Work
from fimd.dwarfs.reader import Image
from fimd.dwarfs.write import Entry, Settings, create_from
from fimd.trees.canonical import canonical
from fimd.trees.entries import entry_of, read
from fimd.trees.merged import Merged, join
from fimd.trees.upper import Upper


def squashed(layers: Sequence[Image], below: Sequence[Image]) -> list[Entry]:
    """Return what one layer has to hold to show what `layers` show, base first, over `below`."""
    together = Upper([])
    for path, node in Merged(layers).walk():
        together.entries.append(entry_of(path, *node.parts[0]))
        if node.is_directory:
            if node.opaque:
                together.opaque.add(path)
            _, deleted = node.names()
            together.whiteouts.update(join(path, name) for name in deleted)
    return canonical(together, Merged(below))


def write_squashed(
    file: NewFile, layers: Sequence[Image], below: Sequence[Image], level: int, work: Work
) -> None:
    """Write the squashed layer to a file, sync it, and compare it with the layers."""
    entries = squashed(layers, below)
    settings = Settings(
        level,
        subsecond=True,
        created=int(time.time()),
        progress=work.packing,
        cancelled=work.cancelled,
    )
    create_from(entries, read, file.fd, settings, name="the squashed layer")
    os.fsync(file.fd)
    with Image.open(file.fd, name="the squashed layer") as image:
        check_equal(image, entries, read, work.phase("verify"), work.cancelled)
