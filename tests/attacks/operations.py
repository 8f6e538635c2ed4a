"""Every operation that touches what programs have written, as the daemon has it done."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fimd.stacks.jailed
from fimd.base.errors import FimError
from fimd.commits.copied import copy_up, fold
from fimd.commits.lost import remove_lost
from fimd.commits.work import Work
from fimd.dwarfs.errors import DwarfsError
from fimd.flatimage.errors import ImageError
from fimd.images import layered_settings
from fimd.jobs.operations import find
from fimd.layers.place import LayerPlace, opened_files
from fimd.mounts.jail import imprison
from fimd.overlays import COPY
from fimd.stacks import status
from fimd.stacks.data import DataDirectory
from tests.attacks.hostile import WORK
from tests.support.layers import chain

Operation = Callable[[Path, Path], None]
"""Takes a data directory and an image. What is hostile is refused with one of `REFUSALS`."""

REFUSALS = (FimError, DwarfsError, ImageError, OSError)


def _facts(data: Path) -> dict[str, Any]:
    return asdict(DataDirectory.open(str(data)))


def _layers(image: Path) -> list[tuple[str, int, int]]:
    return [(place.path, place.offset, place.size) for place in chain(image)]


def _prepare(overlay: str, marks: str | None) -> Operation:
    def prepare(data: Path, image: Path) -> None:
        facts = {
            "layers": _layers(image),
            "marks": marks,
            "copies": True,
            "hidden": [["a", "d"]],
            "by_files": overlay == "overlayfs",
            "is_copy": overlay == COPY,
        }
        given = os.memfd_create("layers")
        os.write(given, json.dumps(facts).encode())
        arguments = {"data": _facts(data), "work": WORK, "overlay": overlay, "casefold": True}
        fimd.stacks.jailed.prepare(arguments, [given])

    return prepare


def _copy_and_fold(data: Path, image: Path) -> None:
    layers = [LayerPlace(*place) for place in _layers(image)]
    with DataDirectory.open(str(data)).opened() as opened, opened_files(layers) as files:
        imprison(opened.directory)
        fold(opened)  # by what a program says that was copied
        copy_up(opened, files, 1)
        fold(opened)


def _discard(data: Path, _image: Path) -> None:
    fimd.stacks.jailed.discard({"data": _facts(data), "work": WORK}, [])


def _job(operation: str, arguments: dict[str, Any]) -> None:
    find(operation)(arguments, Work(), lambda _result: None)


def _commit(mode: str) -> Operation:
    def commit(data: Path, image: Path) -> None:
        path = str(data.parent / "out" / "own.layer") if mode == "file" else ""
        arguments = {"data": _facts(data), "image": str(image), "mode": mode, "path": path}
        _job("commit", {**arguments, "level": 1, "lower": _layers(image), "above": 0})

    return commit


def _reset(data: Path, _image: Path) -> None:
    _job("reset", {"data": _facts(data)})


def _managed(data: Path, image: Path) -> list[tuple[str, int, int]]:
    """The managed layers that `manage` has made."""
    [(_, _, size)] = _layers(image)
    return [(str(data / "layers" / f"layer-{number:03}.layer"), 0, size) for number in range(2)]


def manage(data: Path, image: Path) -> None:
    """Make two managed layers, which are what the image's own is, unless that leads away."""
    [(_, offset, size)] = _layers(image)
    if not (data / "layers").is_symlink():
        for path, _, _ in _managed(data, image):
            with image.open("rb") as source, open(path, "xb") as target:
                source.seek(offset)
                shutil.copyfileobj(source, target, size)


def _squash(data: Path, image: Path) -> None:
    facts = _facts(data)
    layers = _managed(data, image)
    _job(
        "squash",
        {"data": facts, "image": str(image), "below": [], "layers": layers, "level": 1},
    )


def _remove(data: Path, image: Path) -> None:
    facts = _facts(data)
    layer = _managed(data, image)[-1]
    _job("remove", {"data": facts, "image": str(image), "layer": layer})


def _status(data: Path, image: Path) -> None:
    arguments = {"image": str(image), "data": str(data), "layers": _layers(image)}
    status.changed_in_jail(arguments, [])


def _read_settings(data: Path, image: Path) -> None:
    layered_settings.read_in_jail({"image": str(image), "data": str(data)}, [])


def _write_settings(data: Path, image: Path) -> None:
    arguments = {"image": str(image), "data": str(data), "name": "environment.json", "text": "{}"}
    layered_settings.write_in_jail(arguments, [])


def _prune(data: Path, _image: Path) -> None:
    with DataDirectory.open(str(data)).opened() as opened:
        imprison(opened.directory)
        remove_lost(opened)


OPERATIONS: dict[str, Operation] = {
    "adapt to bwrap": _prepare("bwrap", None),
    "adapt to overlayfs": _prepare("overlayfs", None),
    "adapt to unionfs": _prepare("unionfs", ".unionfs"),
    "adapt to an older unionfs": _prepare("unionfs", ".unionfs-fuse"),
    "copy the layers": _prepare(COPY, None),
    "copy the layers and take them out": _copy_and_fold,
    "clean up": _discard,
    "commit to the image": _commit("binary"),
    "commit to a layer": _commit("layer"),
    "commit to a file": _commit("file"),
    "status": _status,
    "reset": _reset,
    "squash": _squash,
    "removal of a layer": _remove,
    "removal of what was lost": _prune,
    "settings read": _read_settings,
    "settings written": _write_settings,
}
