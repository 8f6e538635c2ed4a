"""`fimctl layer list|info|verify|extract|diff`: what layers an image has, and what is in them."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fimctl import messages
from fimctl.daemon import Daemon
from fimctl.environment import data_option, layers_given
from fimctl.errors import ClientError
from fimctl.progress import ProgressBar
from fimctl.stored import print_stored
from fimctl.table import path_text, print_json, print_table, size_text
from fimd.base.texts import printable

if TYPE_CHECKING:
    from fimd.dwarfs.reader import Image
    from fimd.layers.place import LayerPlace

_DAMAGED = 1
_SIGNS = {"added": "+", "changed": "~", "deleted": "-"}


def add_parsers(actions: Any) -> None:
    """Add the commands."""
    listing = actions.add_parser("list", help="list an image's layers, base first")
    listing.add_argument("image", metavar="IMAGE")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(func=_list)
    for name, text, function in (
        ("info", "print what a layer is", _info),
        ("verify", "check every checksum, and that every byte can be read", _verify),
        ("extract", "write a layer's tree into a directory", _extract),
        ("diff", "show what a layer adds (+), changes (~) and deletes (-)", _diff),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("file", metavar="IMAGE|FILE", help="an image, or a layer file")
        action.add_argument(
            "index", metavar="INDEX", type=int, nargs="?", help="the layer's number in the image"
        )
        if name == "extract":
            action.add_argument("-o", "--output", metavar="DIR", required=True)
        if name in {"info", "diff"}:
            action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(func=function)


def stack_options(image: str, *, own_only: bool = False) -> dict[str, tuple[str, Any]]:
    """Return what FIM_LAYERS (unless `own_only`) and FIM_DIR_DATA say of the layers."""
    options = data_option(image)
    layers = [] if own_only else [os.fsencode(path) for path in layers_given(image)]
    return {**options, "layers": ("aay", layers)} if layers else options


def layers_of(
    image: str, options: dict[str, tuple[str, Any]] | None = None
) -> tuple[list["LayerPlace"], list[str]]:
    """Return the layers that an image's next instance gets, base first, and warnings.

    `options` are of `stack_options`.
    """
    from fimd.layers.place import LayerPlace  # noqa: PLC0415 - for these commands only

    given = stack_options(image) if options is None else options
    with Daemon() as daemon:
        opened = daemon.open_image(image)
        found, warnings = daemon.image(opened, "ListLayers", "a{sv}", (given,))
    places = [LayerPlace(os.fsdecode(bytes(path)), *place) for path, *place in found]
    return places, list(warnings)


def list_for_image(image: str) -> int:
    """Do `fim-layer list`: one line `index:offset:size:path` a layer."""
    places, warnings = layers_of(image)
    for warning in warnings:
        messages.warning(warning)
    for index, place in enumerate(places):
        line = f"{index}:{place.offset}:{place.size}:{place.path}"
        print_stored(os.fsencode(line))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    places, warnings = layers_of(arguments.image)
    for warning in warnings:
        print(f"fimctl: {printable(str(warning))}", file=sys.stderr)
    rows = []
    for index, place in enumerate(places):
        with _opened([place]) as [layer]:
            rows.append({"index": index, **_facts(place, layer)})
    if arguments.json:
        print_json(rows)
        return 0
    print_table(
        ("INDEX", "SIZE", "FILES", "CONTENT", "COMPRESSION", "CREATED", "OFFSET", "PATH"),
        [
            (
                str(row["index"]),
                size_text(row["size"]),
                str(row["names"]),
                size_text(row["content"]),
                ",".join(row["compressions"]) or "none",
                _time(row["created"]),
                str(row["offset"]),
                printable(row["path"]),
            )
            for row in rows
        ],
    )
    return 0


def _facts(place: "LayerPlace", layer: "Image") -> dict[str, Any]:
    return {
        "path": place.path,
        "offset": place.offset,
        "size": place.size,
        "names": layer.metadata.entry_count,
        "content": layer.total_size,
        "compressions": sorted(layer.compressions),
        "created": layer.created,
        "created_by": layer.created_by,
    }


def _time(seconds: int | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _info(arguments: argparse.Namespace) -> int:
    with _chosen(arguments) as (places, layers):
        facts = _facts(places[-1], layers[-1])
        if arguments.json:
            print_json(facts)
            return 0
        print(f"{printable(facts['path'])} at offset {facts['offset']}")
        print(f"size: {size_text(facts['size'])} ({facts['size']} bytes)")
        print(f"holds: {facts['names']} names, {size_text(facts['content'])} of files")
        print(f"compression: {', '.join(facts['compressions']) or 'none'}")
        print(f"created: {_time(facts['created'])} by {printable(facts['created_by'] or '-')}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from fimd.dwarfs.verify import verify  # noqa: PLC0415

    with _chosen(arguments) as (places, layers), ProgressBar("verifying") as bar:
        faults = verify(layers[-1], content=True, progress=bar.update)
    for fault in faults:
        print(f"fimctl: {printable(str(fault))}", file=sys.stderr)
    if not faults:
        print(f"{printable(places[-1].path)} at offset {places[-1].offset}: no fault found")
    return _DAMAGED if faults else 0


def _extract(arguments: argparse.Namespace) -> int:
    from fimd.dwarfs.extract import extract  # noqa: PLC0415

    def skip(path: bytes, error: OSError) -> None:
        ProgressBar.note(f"fimctl: left out {path_text(path)}: {error.strerror}")

    with _chosen(arguments) as (_, layers), ProgressBar("extracting") as bar:
        extract(layers[-1], arguments.output, progress=bar.update, on_skip=skip)
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from fimd.layers.owners import are_kept, mapped_ids  # noqa: PLC0415
    from fimd.trees.diff import changes  # noqa: PLC0415
    from fimd.trees.entries import entry_of  # noqa: PLC0415
    from fimd.trees.merged import Merged  # noqa: PLC0415

    with _chosen(arguments) as (_, layers):
        entries = (entry_of(path, layers[-1], facts.inode) for path, facts in layers[-1].walk())
        ids = mapped_ids()
        found = changes(
            entries, Merged(layers[:-1]), owners=all(are_kept(layer, ids) for layer in layers)
        )
        print_changes(found, as_json=arguments.json)
    return 0


def print_changes(changes: Any, *, as_json: bool) -> None:
    """Print changes, one a line with a sign, or as JSON."""
    if as_json:
        print_json([{"kind": item.kind, "path": item.path, "size": item.size} for item in changes])
        return
    for item in changes:
        directory = "/" if item.mode & 0o170000 == 0o040000 else ""
        print(f"{_SIGNS[item.kind]} /{path_text(item.path)}{directory}")


@contextmanager
def _chosen(
    arguments: argparse.Namespace,
) -> Iterator[tuple[list["LayerPlace"], list["Image"]]]:
    """Open the layer that the arguments name, above those below it where they name an image."""
    from fimd.layers.place import LayerPlace  # noqa: PLC0415

    path = os.path.abspath(arguments.file)
    if arguments.index is None:
        try:
            places = [LayerPlace(path, 0, os.stat(path).st_size)]
        except OSError as error:
            raise ClientError(f"{arguments.file}: {error.strerror}") from error
    else:
        listed, _ = layers_of(path)
        if not 0 <= arguments.index < len(listed):
            raise ClientError(
                f"there is no layer {arguments.index}: {arguments.file} has 0 to {len(listed) - 1}"
            )
        places = listed[: arguments.index + 1]
    with _opened(places) as layers:
        yield places, layers


@contextmanager
def _opened(places: list["LayerPlace"]) -> Iterator[list["Image"]]:
    from fimd.base.errors import FimError  # noqa: PLC0415
    from fimd.dwarfs.errors import DwarfsError  # noqa: PLC0415
    from fimd.trees.merged import open_layers  # noqa: PLC0415

    try:
        with open_layers(places) as layers:
            yield layers
    except (DwarfsError, FimError) as error:
        raise ClientError(str(error), _DAMAGED) from error
    except OSError as error:
        name = "" if error.filename is None else f"{path_text(os.fsencode(error.filename))}: "
        raise ClientError(f"{name}{error.strerror}", _DAMAGED) from error
