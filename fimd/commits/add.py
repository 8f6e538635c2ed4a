"""Adding a layer file to an image's own chain, once it is known to be whole."""

import os

from fimd.base.errors import BadLayerError, NotFoundError
from fimd.commits.commit import append
from fimd.commits.work import Work
from fimd.dwarfs.errors import DwarfsError
from fimd.dwarfs.reader import Image
from fimd.dwarfs.verify import verify
from fimd.flatimage.chain import EmbeddedLayer
from fimd.flatimage.file import open_image


def add_layer(image: str, path: str, work: Work) -> EmbeddedLayer:
    """Verify a layer file in full and append it to an image.

    Raises NotFoundError, BadLayerError or ImageError; then the image is as it was.
    """
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotFoundError(f"Failed to open input file '{path}': {error.strerror}") from error
    try:
        verify_layer(source, path, work)
        with open_image(image, writable=True) as target:
            return append(target, image, source, work).layer
    finally:
        os.close(source)


def verify_layer(source: int, name: str, work: Work) -> None:
    """Check that an open file is a DwarFS image of which every byte can be read."""
    try:
        with Image.open(source) as layer:
            faults = verify(
                layer, content=True, progress=work.phase("verify"), cancelled=work.cancelled
            )
            if faults:
                raise BadLayerError(f"{name} is damaged, so it was not added: {faults[0]}")
    except BadLayerError:
        raise
    except DwarfsError as error:
        work.check()
        raise BadLayerError(f"{name} is no layer: {error}") from error
