"""Changing which layers there are: squash a range, remove the topmost, export one."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

from fimd.base.errors import FimError, InvalidArgumentError
from fimd.commits.add import verify_layer
from fimd.commits.aside import set_aside
from fimd.commits.lock import exclusive
from fimd.commits.managed import replace_managed
from fimd.commits.newfile import NewFile
from fimd.commits.recovery import recover
from fimd.commits.squash import write_squashed
from fimd.commits.work import Work
from fimd.flatimage.append import remove_last_layer
from fimd.flatimage.chain import EmbeddedLayer
from fimd.flatimage.copy import copy_range
from fimd.flatimage.file import open_image
from fimd.flatimage.replace import replace_layers
from fimd.layers.place import LayerPlace
from fimd.trees.merged import open_layers


def squash(
    image: str,
    data: str,
    below: Sequence[LayerPlace],
    layers: Sequence[LayerPlace],
    level: int,
    work: Work,
) -> LayerPlace:
    """Make one of neighbouring layers, which are all in the image or all managed.

    Returns the new layer. Raises FimError, DwarfsError or ImageError; then nothing has changed.
    """
    managed = os.path.join(data, "layers")
    are_managed = [os.path.dirname(layer.path) == managed for layer in layers]
    are_embedded = [layer.path == image for layer in layers]
    if len(layers) < 2 or not (all(are_managed) or all(are_embedded)):
        raise InvalidArgumentError(
            "a squash needs two layers or more, all in the image or all among its managed ones"
        )
    with ExitStack() as stack:
        stack.enter_context(exclusive(data))
        for message in recover(data):
            work.note(message)
        tmp = os.path.join(data, "tmp")
        file = stack.enter_context(NewFile(tmp, tmp))
        opened = stack.enter_context(open_layers([*below, *layers]))
        write_squashed(file, opened[len(below) :], opened[: len(below)], level, work)
        work.check()
        if all(are_managed):
            names = [os.path.basename(layer.path) for layer in layers]
            path = replace_managed(file, data, names)
            return LayerPlace(path, 0, os.fstat(file.fd).st_size)
        first, last = (EmbeddedLayer(place.offset, place.size) for place in (layers[0], layers[-1]))
        made = replace_layers(
            image,
            first,
            last,
            file.fd,
            progress=work.phase("append"),
            cancelled=work.cancelled,
        )
        return LayerPlace(image, made.offset, made.size)


def remove_topmost(image: str, data: str, layer: LayerPlace) -> None:
    """Remove a layer: a managed file, or the topmost of the image's own chain."""
    with exclusive(data):
        recover(data)
        if layer.path == image:
            with open_image(image, writable=True) as opened:
                remove_last_layer(opened, EmbeddedLayer(layer.offset, layer.size), wait=5.0)
        elif os.path.dirname(layer.path) == os.path.join(data, "layers"):
            os.unlink(layer.path)
        else:
            raise InvalidArgumentError(
                f"{layer.path} is neither in the image nor one of its managed layers: leave it "
                "out of FIM_LAYERS"
            )


def export(layer: LayerPlace, output: str, work: Work) -> int:
    """Write a layer to a file of its own, verified; return its size. Raises FimError."""
    directory, name = os.path.split(output)
    if os.path.lexists(output):
        raise FimError("Destination file already exists")
    source = os.open(layer.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with NewFile(directory) as file:
            copy_range(
                source,
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
    finally:
        os.close(source)


def reset(data: str, work: Work) -> None:
    """Throw away what was changed, in one step."""
    with exclusive(data):
        recover(data)
        with set_aside(data) as aside:
            work.unerased(aside.kept())
            aside.remove()
