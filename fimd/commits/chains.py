"""Changing which layers there are: squash a range, remove the topmost, export one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from fimd.base.errors import FimError, InvalidArgumentError
from fimd.commits.add import verify_layer
from fimd.commits.aside import Aside, set_aside
from fimd.commits.lock import exclusive
from fimd.commits.managed import replace_managed
from fimd.commits.newfile import NewFile
from fimd.commits.opened import OpenData
from fimd.commits.recovery import recover
from fimd.commits.request import opened_target
from fimd.commits.squash import write_squashed
from fimd.commits.work import Work
from fimd.dwarfs.write import Entry, PackError, SourceTree
from fimd.flatimage.append import remove_last_layer
from fimd.flatimage.chain import EmbeddedLayer
from fimd.flatimage.copy import copy_range
from fimd.flatimage.file import open_image
from fimd.flatimage.replace import replace_layers
from fimd.layers.place import LayerPlace, opened_files
from fimd.trees.merged import open_layers


@dataclass(frozen=True)
class HeldChain:
    """An image and its data directory, held open: for who is about to enter a jail.

    `image` is open for writing, and the directory that it lies in is, where there is one to change.
    """

    path: str
    data: OpenData
    image: int | None
    directory: int | None

    @property
    def managed(self) -> str:
        """Where the managed layers are."""
        return os.path.join(self.data.path, "layers")


@contextmanager
def held_chain(image: str, data: OpenData, layers: Sequence[LayerPlace]) -> Iterator[HeldChain]:
    """Open an image as well, where one of the layers that are to be changed lies in it."""
    with ExitStack() as stack:
        opened = directory = None
        if any(layer.path == image for layer in layers):
            opened = stack.enter_context(open_image(image, writable=True))
            directory = stack.enter_context(opened_target(os.path.dirname(image)))
        yield HeldChain(image, data, opened, directory)


def squash(
    held: HeldChain,
    below: Sequence[LayerPlace],
    layers: Sequence[LayerPlace],
    level: int,
    work: Work,
) -> LayerPlace:
    """Make one of neighbouring layers, which are all in the image or all managed.

    Returns the new layer. Raises FimError, DwarfsError or ImageError; then nothing has changed.
    """
    are_managed = [os.path.dirname(layer.path) == held.managed for layer in layers]
    are_embedded = [layer.path == held.path for layer in layers]
    if len(layers) < 2 or not (all(are_managed) or all(are_embedded)):
        raise InvalidArgumentError(
            "a squash needs two layers or more, all in the image or all among its managed ones"
        )
    data = held.data
    with ExitStack() as stack:
        stack.enter_context(exclusive(data))
        for message in recover(data):
            work.note(message)
        file = stack.enter_context(NewFile(data.tmp, os.path.join(data.path, "tmp"), data.tmp))
        opened = stack.enter_context(open_layers([*below, *layers]))
        write_squashed(file, opened[len(below) :], opened[: len(below)], level, work)
        work.check()
        if all(are_managed):
            names = [os.path.basename(layer.path) for layer in layers]
            path = replace_managed(file, data, names)
            return LayerPlace(path, 0, os.fstat(file.fd).st_size)
        assert held.image is not None
        assert held.directory is not None
        first, last = (EmbeddedLayer(place.offset, place.size) for place in (layers[0], layers[-1]))
        made = replace_layers(
            held.image,
            held.directory,
            held.path,
            first,
            last,
            file.fd,
            progress=work.phase("append"),
            cancelled=work.cancelled,
        )
        return LayerPlace(held.path, made.offset, made.size)


def remove_topmost(held: HeldChain, layer: LayerPlace) -> None:
    """Remove a layer: a managed file, or the topmost of the image's own chain."""
    with exclusive(held.data):
        recover(held.data)
        if held.image is not None:
            remove_last_layer(held.image, EmbeddedLayer(layer.offset, layer.size), wait=5.0)
        elif os.path.dirname(layer.path) == held.managed:
            os.unlink(os.path.basename(layer.path), dir_fd=held.data.layers)
        else:
            raise InvalidArgumentError(
                f"{layer.path} is neither in the image nor one of its managed layers: leave it "
                "out of FIM_LAYERS"
            )


def export(layer: LayerPlace, output: str, work: Work) -> int:
    """Write a layer to a file of its own, verified; return its size. Raises FimError."""
    path, name = os.path.split(output)
    if os.path.lexists(output):
        raise FimError("Destination file already exists")
    with (
        opened_files([layer]) as [opened],
        opened_target(path) as directory,
        NewFile(directory, path) as file,
    ):
        assert opened.descriptor is not None
        copy_range(
            opened.descriptor,
            layer.offset,
            file.fd,
            0,
            layer.size,
            work.phase("append"),
            work.cancelled,
        )
        verify_layer(file.fd, f"the layer at {layer.offset} of {layer.path}", work)
        try:
            file.publish(name)
        except FileExistsError:
            raise FimError("Destination file already exists") from None
        return layer.size


def reset(data: OpenData, work: Work) -> None:
    """Throw away what was changed, in one step."""
    with exclusive(data):
        recover(data)
        with set_aside(data) as aside:
            work.unerased(list(aside.kept(_found(data, aside))))
            aside.remove()


def _found(data: OpenData, aside: Aside) -> list[Entry]:
    """Return what is thrown away, as far as it can be looked through."""
    try:
        with SourceTree(data.root, directory=aside.directory) as tree:
            return tree.scan()
    except PackError:
        return []
