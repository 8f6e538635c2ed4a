"""How much a data directory takes, looked at by a process in a jail."""

import os
from typing import Any, Final

from fimd.base.errors import FimError
from fimd.commits.opened import DIRECTORY
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.write import SourceTree
from fimd.mounts.jail import call_apart, imprison
from fimd.stacks.data import opened_upper

_SECONDS: Final = 600.0
_PARTS: Final = {"layers": ("layers",), "others": ("tmp", "work", "casefold")}


def size(image: str, data: str) -> dict[str, int]:
    """Return the bytes that parts of a data directory take: changes, layers, others.

    `image` is a real path. Blocks, as `call_apart`. Raises FimError.
    """
    arguments = {"image": image, "data": data}
    found: dict[str, int] = call_apart(f"{__name__}:size_in_jail", arguments)
    return found


def size_in_jail(arguments: dict[str, Any], _files: list[int]) -> dict[str, int]:
    """Add up what files take by this process, which is imprisoned in the directory."""
    with opened_upper(arguments["image"], arguments["data"]) as upper:
        if upper is None:
            return dict.fromkeys(("changes", *_PARTS), 0)
        directory = os.open(arguments["data"], DIRECTORY)
        imprison(directory, seconds=_SECONDS)
        try:
            sizes = {"changes": _taken(upper)}
            for part, names in _PARTS.items():
                sizes[part] = sum(_taken_by(directory, name) for name in names)
        except DwarfsError as error:
            raise FimError(str(error)) from error
        return sizes


def _taken_by(directory: int, name: str) -> int:
    try:
        part = os.open(name, DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        return 0
    return _taken(part)


def _taken(directory: int) -> int:
    """Return the bytes of files below a directory, without holes, and each file once."""
    seen: set[object] = set()
    total = 0
    with SourceTree("the data directory", directory=directory) as tree:
        for entry in tree.scan():
            if entry.identity is None or entry.identity not in seen:
                total += entry.size - entry.hole_bytes
                seen.add(entry.identity)
    return total
