"""Whom the files of a layer belong to, as an application sees it.

Where ids are mapped, they belong to whom the layer says; but who owns the layer's top directory is
root there, since images that a plain user packed have that user's id everywhere. What is not mapped
is nobody's. Where no more than one id is mapped, everything is root's, as FlatImage has it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from fimd.base.errors import BadLayerError
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.reader import Image

ROOT: Final = 0
NOBODY: Final = 65534
"""What the kernel shows for an id that is not mapped (/proc/sys/kernel/overflowuid)."""
_MAPS: Final = (Path("/proc/self/uid_map"), Path("/proc/self/gid_map"))


@dataclass(frozen=True)
class Owners:
    """How the owners in a layer are shown, where ids below `ids` are mapped."""

    top_user: int
    top_group: int
    ids: int

    @classmethod
    def of(cls, layer: Image) -> Self:
        """Return how those of a layer are shown in this process's user namespace."""
        top = layer.stat(layer.root)
        return cls(top.uid, top.gid, mapped_ids())

    def user(self, uid: int) -> int:
        """Return the user that one in the layer is shown as."""
        return self._shown(uid, self.top_user)

    def group(self, gid: int) -> int:
        """Return the group that one in the layer is shown as."""
        return self._shown(gid, self.top_group)

    def _shown(self, number: int, top: int) -> int:
        if number == top or self.ids <= 1:
            return ROOT
        if number < self.ids:
            return number
        return NOBODY if self.ids > NOBODY else ROOT


def are_kept(layer: Image, ids: int) -> bool:
    """Whether a layer shows the owners that it holds, where ids below `ids` are mapped."""
    top = layer.stat(layer.root)
    return ids > 1 and (top.uid, top.gid) == (ROOT, ROOT)


def keeps(arguments: dict[str, Any], files: list[int]) -> bool:
    """Answer whether `are_kept` for a layer in a file. Raises BadLayerError."""
    try:
        with Image.open(files[0], arguments["offset"], arguments["size"]) as image:
            return are_kept(image, mapped_ids())
    except DwarfsError as error:
        raise BadLayerError(f"layer {arguments['path']}: {error}") from error


def mapped_ids() -> int:
    """Return how many ids, of both kinds, are mapped from 0 on (user_namespaces(7))."""
    return min(map(_mapped, _MAPS))


def _mapped(path: Path) -> int:
    reached = 0
    ranges = (tuple(map(int, line.split())) for line in path.read_text().splitlines())
    for inside, _, count in sorted(ranges):
        if inside == reached:
            reached += count
    return reached
