"""Which layers a stack has: embedded, then FIM_LAYERS, then the managed directory, base first.

Everything here reads files and is called from a thread, never from the event loop.
"""

import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from fimd.base.errors import BadLayerError
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.sections import fingerprint
from fimd.flatimage.chain import EmbeddedLayer
from fimd.layers.source import LayerSource

_REMEMBERED: Final = 4096


@dataclass
class Resolver:
    """Finds layers, and remembers the fingerprints of files that have not changed since."""

    _known: "OrderedDict[tuple[int, ...], bytes]" = field(default_factory=OrderedDict)

    def embedded(
        self, image: str, descriptor: int, chain: Iterable[EmbeddedLayer]
    ) -> list[LayerSource]:
        """Return the layers of an image's chain. Raises BadLayerError for one that is damaged."""
        return [self._source(image, descriptor, link.offset, link.size) for link in chain]

    def external(self, entries: Sequence[str], warnings: list[str]) -> list[LayerSource]:
        """Return the layers of files and directories, in the given order.

        A directory gives its regular files (links to them too) in byte order of their names. What
        is no layer is left out, with a warning that names it.
        """
        found: list[LayerSource] = []
        for entry in entries:
            skipped: list[str] = []
            sources = list(self._sources(_files(entry, skipped), skipped))
            if not sources and _is_tree(entry):
                skipped = [
                    f"Skipping '{entry}': it is a tree of files, and no directory of layers: make "
                    f"a layer of it (fim-layer create '{entry}' FILE) and name that"
                ]
            warnings += skipped
            found += sources
        return found

    def _sources(self, paths: Iterable[str], warnings: list[str]) -> Iterator[LayerSource]:
        for path in paths:
            try:
                yield self._file(path)
            except (OSError, BadLayerError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                reason = (reason or "").removeprefix(f"{path}: ").removeprefix(f"{path}, ")
                warnings.append(f"Skipping invalid dwarfs filesystem '{path}': {reason}")

    def _file(self, path: str) -> LayerSource:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise BadLayerError(f"{path} is not a regular file")
            return self._source(path, descriptor, 0, facts.st_size)
        finally:
            os.close(descriptor)

    def _source(self, path: str, descriptor: int, offset: int, size: int) -> LayerSource:
        facts = os.fstat(descriptor)
        key = (
            *(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns),
            *(offset, size),
        )
        content = self._known.get(key)
        if content is None:
            try:
                content = fingerprint(descriptor, offset, size)
            except DwarfsError as error:
                said = str(error)
                raise BadLayerError(said if path in said else f"{path}: {said}") from error
            self._known[key] = content
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return LayerSource(path, offset, size, facts.st_dev, facts.st_ino, content)


def _files(entry: str, warnings: list[str]) -> Iterator[str]:
    try:
        mode = os.stat(entry).st_mode
        if stat.S_ISDIR(mode):
            with os.scandir(entry) as directory:
                names = sorted(os.fsencode(item.name) for item in directory if item.is_file())
            yield from (os.path.join(entry, os.fsdecode(name)) for name in names)
        elif stat.S_ISREG(mode):
            yield entry
        else:
            warnings.append(f"Skipping '{entry}': it is neither a file nor a directory")
    except OSError as error:
        warnings.append(f"Skipping '{entry}': {error.strerror}")


def _is_tree(entry: str) -> bool:
    """Tell whether an entry is a directory that has others in it: layers lie in none."""
    try:
        with os.scandir(entry) as directory:
            return any(item.is_dir(follow_symlinks=False) for item in directory)
    except OSError:
        return False
