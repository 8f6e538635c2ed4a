"""DwarFS in Python: read, write, verify and serve images, with nothing of the rest of fimd.

`Image.open(path)` gives the tree of an image; `verify`, `extract`, `serve` and `write` are modules
of their own, imported by who needs them. Every fault of an image is a `DwarfsError`.
"""

from typing import TYPE_CHECKING

from fimd.dwarfs.errors import DwarfsError

if TYPE_CHECKING:
    from fimd.dwarfs.reader import Image

else:

    def __getattr__(name):  # noqa: ANN001, ANN202 - the type checker sees the import above
        """Import the reader when it is first asked for: the parts that only write never ask."""
        if name == "Image":
            from fimd.dwarfs.reader import Image  # noqa: PLC0415 - late on purpose

            return Image
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["DwarfsError", "Image"]
