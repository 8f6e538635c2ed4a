"""What is done to a data directory around its mount, by forks of the template, each in a jail.

The template imports this module, and with it all that its forks will not find in their jails.
"""

import json
import os
from itertools import islice
from typing import Any, Final

from fimd.base.abilities import missing
from fimd.base.errors import DataDirectoryError
from fimd.base.removal import remove_tree
from fimd.casefold.rivals import rivals
from fimd.commits.copied import copy_up, fold, is_copied
from fimd.commits.lock import exclusive
from fimd.commits.lost import find_lost, lose, remove_lost
from fimd.commits.opened import DIRECTORY, OpenData
from fimd.commits.recovery import recover
from fimd.dwarfs.codecs import load_codecs
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.write.entries import printable
from fimd.layers.owners import mapped_ids
from fimd.layers.place import LayerPlace, opened_files
from fimd.mounts.jail import imprison
from fimd.overlays.adapt import adapt
from fimd.stacks.data import DataDirectory
from fimd.trees.ghosts import ghosts
from fimd.trees.merged import open_layers

SECONDS: Final = 600.0
"""How long it may take: an upper can hold very many files."""
_MEMORY: Final = 2 << 30
"""Bytes that looking through an upper may take; a million files take half of it."""

_NAMED: Final = 3
"""How many groups of spellings are told."""

load_codecs()


def prepare(arguments: dict[str, Any], files: list[int]) -> dict[str, Any]:
    """Make a data directory ready by this process, which is imprisoned in it."""
    with open(files[0], "rb") as file:
        file.seek(0)
        facts = json.load(file)
    places = [LayerPlace(*place) for place in facts["layers"]]
    name, overlay = arguments["work"], arguments["overlay"]
    data = DataDirectory(**arguments["data"])
    ids = mapped_ids()
    with data.opened() as opened, opened_files(places) as layers:
        imprison(opened.directory, memory=_MEMORY, seconds=SECONDS)
        with exclusive(opened):
            notes = [*recover(opened), *_remove_work(opened, name)]
            os.mkdir(name, 0o700, dir_fd=opened.work)
            work = os.stat(name, dir_fd=opened.work, follow_symlinks=False)
            marks = None if facts["marks"] is None else os.fsencode(facts["marks"])
            try:
                adapt(
                    *(opened, layers, overlay, marks, name),
                    by_files=facts["by_files"],
                    copies=facts["copies"],
                    ids=ids,
                )
                if facts["is_copy"]:
                    copy_up(opened, layers, ids)
                notes += _missing(opened, name)
                if arguments["casefold"]:
                    notes += _rivals(layers)
                found = _ghosts(opened, layers, facts["hidden"])
            except (DwarfsError, OSError, MemoryError) as error:
                reason = str(error) or "they are too many for its memory"
                raise DataDirectoryError(
                    f"the changes in {opened.root} can't be brought to the form of the overlay "
                    f"{overlay}: {reason}"
                ) from error
    return {"notes": notes, "work": [work.st_dev, work.st_ino], "ghosts": found}


def _missing(data: OpenData, work: str) -> list[str]:
    """Return a sentence where the file system of the changes keeps less than programs rely on."""
    directory = os.open(work, DIRECTORY, dir_fd=data.work)
    try:
        found = missing(directory)
    finally:
        os.close(directory)
    if not found:
        return []
    return [
        f"the file system of {data.root} keeps no {', no '.join(found)}: what programs "
        "do with them is refused or lost; set FIM_DIR_DATA to a directory on another file system"
    ]


def _rivals(layers: tuple[LayerPlace, ...]) -> list[str]:
    """Return sentences about what a case-insensitive view can't show of the layers."""
    with open_layers(layers) as images:
        found = list(islice(rivals(images), _NAMED + 1))
    shown = [
        f"{' and '.join(f'/{printable(path)}' for path in group)} of the layers differ only in "
        "case, and only one of them is found: pack them with one spelling"
        for group in found[:_NAMED]
    ]
    return [*shown, *(["and more of that kind"] if len(found) > _NAMED else [])]


def _ghosts(
    data: OpenData, layers: tuple[LayerPlace, ...], hidden: list[list[str]] | None
) -> dict[int, list[str]]:
    if hidden is None:
        return {}
    upper = data.open_upper()
    try:
        found = ghosts(layers, [map(os.fsencode, paths) for paths in hidden], upper)
    finally:
        os.close(upper)
    return {number: list(map(os.fsdecode, paths)) for number, paths in found.items()}


def discard(arguments: dict[str, Any], _files: list[int]) -> None:
    """Remove what an overlay has left, by this process, which is imprisoned."""
    with DataDirectory(**arguments["data"]).opened(unchanged=False) as opened:
        imprison(opened.directory, memory=_MEMORY, seconds=SECONDS)
        if is_copied(opened):
            with exclusive(opened):
                fold(opened)
        _remove_work(opened, arguments["work"])


def prune(arguments: dict[str, Any], _files: list[int]) -> tuple[int, list[str]]:
    """Remove what is kept as lost, by this process, which is imprisoned.

    Returns how much that was, and the paths of what had to stay.
    """
    with DataDirectory(**arguments["data"]).opened(unchanged=False) as opened:
        imprison(opened.directory, memory=_MEMORY, seconds=SECONDS)
        with exclusive(opened):
            found, kept = find_lost(opened), remove_lost(opened)
    return len(found) - len(kept), [os.path.join(opened.path, "tmp", name) for name in kept]


def _remove_work(data: OpenData, name: str) -> list[str]:
    """Remove a directory in work/; return a sentence where that can't be, and it is kept as lost.

    Another overlay refuses one that has been used. Kernel overlayfs leaves one of mode 000 in it.
    """
    try:
        remove_tree(data.work, name)
    except OSError as error:
        path = lose(data, name, directory=data.work)
        return [f"a work directory can't be removed ({error.strerror}): it is kept in {path}"]
    return []
