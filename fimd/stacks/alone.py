"""A data directory as a tree for a program that has no sandbox: a copy in its upper, for a while.

For a process of root's where nothing can be mounted and no namespace be made.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fimd.base.errors import BadLayerError
from fimd.commits.copied import copy_up, fold
from fimd.commits.lock import exclusive
from fimd.commits.recovery import recover
from fimd.dwarfs.codecs import load_codecs
from fimd.dwarfs.errors import DwarfsError
from fimd.layers.owners import mapped_ids
from fimd.layers.place import LayerPlace, opened_files
from fimd.layers.source import LayerSource
from fimd.mounts.jail import call_apart, imprison
from fimd.overlays import COPY
from fimd.overlays.adapt import adapt
from fimd.stacks.data import DataDirectory


@contextmanager
def laid_out(data: DataDirectory, layers: Sequence[LayerSource]) -> Iterator[str]:
    """Have layers, base first, and changes as one tree at the yielded path. Raises FimError.

    Nobody else can change or mount them meanwhile.
    """
    places = [(layer.path, layer.offset, layer.size) for layer in layers]
    facts = {"data": asdict(data)}
    with data.opened() as opened, exclusive(opened):
        call_apart(f"{__name__}:lay_out", {**facts, "layers": places})
        try:
            yield data.root
        finally:
            call_apart(f"{__name__}:clear_up", facts)


def lay_out(arguments: dict[str, Any], _files: list[int]) -> None:
    """Copy the layers by this process, which is imprisoned in the data directory."""
    load_codecs()
    places = [LayerPlace(*place) for place in arguments["layers"]]
    ids = mapped_ids()
    try:
        with (
            DataDirectory(**arguments["data"]).opened() as opened,
            opened_files(places) as layers,
        ):
            imprison(opened.directory)
            recover(opened)
            adapt(opened, layers, COPY, None, "", by_files=True, copies=True, ids=ids)
            copy_up(opened, layers, ids, devices=True)
    except DwarfsError as error:
        raise BadLayerError(str(error)) from error


def clear_up(arguments: dict[str, Any], _files: list[int]) -> None:
    """Leave what was changed alone, by this process, which is imprisoned."""
    with DataDirectory(**arguments["data"]).opened(unchanged=False) as opened:
        imprison(opened.directory)
        fold(opened)
