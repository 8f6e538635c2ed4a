"""A commit: the changes in an upper directory become a layer, and nothing is lost on the way.

The order of the steps is what makes it safe. The layer is written to a file without a name,
synced, compared with the upper byte by byte, and published in one step; only then is the upper
set aside. Killed before the layer is published, the changes are in the upper. Killed after that,
they are in the layer, and perhaps in the upper too, which shows the same tree.

What it needs from outside of the data directory is held open before (fimd.commits.request), so all
of it can be done in a jail.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from fimd.base.errors import FimError
from fimd.commits.aside import Aside, set_aside
from fimd.commits.compare import check_equal
from fimd.commits.lock import exclusive
from fimd.commits.newfile import NewFile
from fimd.commits.opened import OpenData
from fimd.commits.recovery import recover
from fimd.commits.request import HeldCommit
from fimd.commits.work import Work
from fimd.dwarfs.reader import Image
from fimd.dwarfs.verify import verify
from fimd.dwarfs.write import Entry, PackError, Settings, SourceTree, create_from
from fimd.dwarfs.write.entries import printable
from fimd.flatimage.append import Appended, append_layer
from fimd.flatimage.chain import EmbeddedLayer
from fimd.layers.owners import are_kept
from fimd.trees.attributes import sentences
from fimd.trees.canonical import canonical
from fimd.trees.diff import changes
from fimd.trees.merged import Merged, open_layers
from fimd.trees.order import check_visible
from fimd.trees.upper import Upper, read_upper

_MOMENT: Final = 5.0
"""Seconds that the removal of the old upper may take before the end is told."""

MOST_LAYERS: Final = 1000
_MANAGED: Final = re.compile(r"layer-([0-9]{3})\.layer")


@dataclass(frozen=True)
class Committed:
    """The new layer: its file, offset and size in bytes, and its number in the managed ones."""

    path: str
    offset: int
    size: int
    number: int | None = None


def commit(held: HeldCommit, work: Work, done: Callable[[Committed | None], None]) -> None:
    """Commit an upper directory; calls `done` once with the new layer, None where it is empty.

    What may be left then is to remove the old upper, where that takes longer than a moment; the
    directory is free for others before. Raises BusyError, PackError, ImageError and other
    FimErrors; then the upper is as it was.
    """
    data = held.data
    with ExitStack() as lock:
        lock.enter_context(exclusive(data))
        for message in recover(data):
            work.note(message)
        with opened_tree(data) as tree:
            scanned = tree.scan(cancelled=work.cancelled)
            upper = read_upper(tree, scanned)
            committed, aside = None, None
            if entries := entries_of(upper, held, work):
                committed = _store(held, work, tree, scanned, entries)
                aside = _empty(data, tree, scanned, work)
            if aside is not None:
                work.unerased(list(aside.kept(scanned)))
        held.close()
        lock.close()
        if aside is None:
            done(committed)
            return
        with aside, ThreadPoolExecutor(1) as apart:
            removal = apart.submit(aside.remove, scanned)
            wait([removal], _MOMENT)
            done(committed)
            removal.result()


@contextmanager
def opened_tree(data: OpenData) -> Iterator[SourceTree]:
    """Open the upper to be read."""
    directory = data.open_upper()
    try:
        with SourceTree(data.root, directory=directory) as tree:
            yield tree
    finally:
        os.close(directory)


def entries_of(upper: Upper, held: HeldCommit, work: Work) -> list[Entry]:
    """Return what a layer of the upper holds, which has deletions in their canonical form.

    That is nothing where nothing was changed.
    """
    with open_layers(held.lower if upper.has_marks else ()) as images:
        merged = Merged(images)
        entries = canonical(upper, merged)
        seen = all(are_kept(image, held.ids) for image in images)
        # a file of the same time and size may be another: its writer may have set its time back
        is_written = any(stat.S_ISREG(entry.mode) for entry in entries)
        if upper.has_marks and not is_written and not any(changes(entries, merged, owners=seen)):
            return []
    if len(entries) <= 1:
        return []
    for sentence in sentences(upper.attributes):
        work.note(sentence)
    return entries


def _store(
    held: HeldCommit, work: Work, tree: SourceTree, scanned: list[Entry], entries: list[Entry]
) -> Committed:
    """Make the layer and publish it."""
    request, data = held.request, held.data
    if request.above:
        with open_layers(held.lower[-request.above :]) as above:
            check_visible(entries, above)
    directory, place = held.target
    name = os.path.basename(request.path)
    if request.mode == "file" and _is_there(directory, name):
        raise FimError("Destination file already exists")
    if request.mode == "layer":
        next_number(directory, place)
    with NewFile(directory, place, data.tmp) as file:
        write_layer(file, entries, tree, request.level, work)
        _check_unchanged(tree, scanned)
        if held.image is not None:
            layer = append(held.image, request.image, file.fd, work).layer
            return Committed(request.image, layer.offset, layer.size)
        size = os.fstat(file.fd).st_size
        if request.mode == "file":
            try:
                file.publish(name)
            except FileExistsError:
                raise FimError("Destination file already exists") from None
            return Committed(request.path, 0, size)
        number = publish_managed(file, directory, place)
        return Committed(os.path.join(place, managed_name(number)), 0, size, number)


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write_layer(
    file: NewFile, entries: list[Entry], tree: SourceTree, level: int, work: Work
) -> None:
    """Pack entries into a file, sync it, and compare what it holds with them."""
    settings = Settings(
        level, subsecond=True, progress=work.packing, cancelled=work.cancelled, created=_now()
    )
    summary = create_from(entries, tree.read, file.fd, settings, name="the layer")
    if summary.times_clamped:
        work.note(
            f"{summary.times_clamped} files have times outside 1970 to 2242: set to the nearest"
        )
    os.fsync(file.fd)
    with Image.open(file.fd, name="the layer") as image:
        check_equal(image, entries, tree.read, work.phase("verify"), work.cancelled)


def append(target: int, image: str, source: int, work: Work, wait: float = 5.0) -> Appended:
    """Append a layer to an open image, and say what an interrupted append had left there."""

    def check(layer: EmbeddedLayer) -> None:
        with Image.open(target, layer.offset, layer.size, name=image) as copy:
            for fault in verify(copy, cancelled=work.cancelled):
                raise fault

    appended = append_layer(
        target,
        source,
        progress=work.phase("append"),
        cancelled=work.cancelled,
        verify=check,
        wait=wait,
    )
    if appended.cut_bytes:
        work.note(
            f"an interrupted append had left {appended.cut_bytes} bytes at the end of {image}: "
            "they were cut off"
        )
    if appended.recovered is not None:
        work.note(
            f"an interrupted append had left a complete layer at offset "
            f"{appended.recovered.offset} of {image}: it is a part of the image now"
        )
    return appended


def managed_name(number: int) -> str:
    """Return the file name of a managed layer."""
    return f"layer-{number:03}.layer"


def next_number(directory: int, path: str) -> int:
    """Return the number of the next managed layer: one above the highest. Raises FimError."""
    matches = map(_MANAGED.fullmatch, os.listdir(directory))
    number = max((int(match[1]) for match in matches if match), default=-1) + 1
    if number >= MOST_LAYERS:
        raise FimError(
            f"Maximum number of layers exceeded: {managed_name(number - 1)} is the last one in "
            f"{path}; squash some (fimctl layer squash), or remove them"
        )
    return number


def publish_managed(file: NewFile, directory: int, path: str) -> int:
    """Give a file the next number's name, whoever else takes numbers; return the number."""
    while True:
        number = next_number(directory, path)
        try:
            file.publish(managed_name(number))
        except FileExistsError:
            continue
        return number


def _now() -> int:
    return int(time.time())


def _states(scanned: list[Entry]) -> dict[bytes, object]:
    return {entry.path: entry.source.state for entry in scanned}


def _check_unchanged(tree: SourceTree, scanned: list[Entry]) -> None:
    """Raise PackError, which names it, where something was changed since the scan."""
    before, now = _states(scanned), _states(tree.scan())
    for path in before.keys() | now.keys():
        if before.get(path) != now.get(path):
            raise PackError(
                "was changed while it was being committed: end what writes there, and try again",
                path=printable(path) or ".",
            )


def _empty(data: OpenData, tree: SourceTree, scanned: list[Entry], work: Work) -> Aside | None:
    """Set the upper aside; None where somebody has changed it since and it has to stay."""
    aside = set_aside(data)
    before, now = _states(scanned), _states(tree.scan())
    before.pop(b""), now.pop(b"")
    if before == now:
        return aside
    with aside:
        aside.put_back()
    work.note(
        f"something still writes to {data.root}: the layer is complete, and the changes stay "
        "there as well"
    )
    return None
