"""What a commit is asked to do, checked."""

from dataclasses import dataclass
from typing import Final

from fimd.base.errors import InvalidArgumentError
from fimd.layers.place import LayerPlace

MODES: Final = ("binary", "layer", "file")
LEVELS: Final = range(10)
DEFAULT_LEVEL: Final = 7


def check_level(level: int) -> None:
    """Raise InvalidArgumentError where a compression level is none."""
    if level not in LEVELS:
        raise InvalidArgumentError(f"compression level {level} is not one of 0 to 9")


@dataclass(frozen=True)
class CommitRequest:
    """What to commit, and where to.

    Attributes:
        data: the data directory, an absolute path.
        image: the image, which `binary` appends to.
        mode: binary, layer or file.
        path: the file's absolute path, for the mode of that name.
        level: compression, 0 to 9.
        lower: the layers below the upper, base first.
        above: how many of them will lie above the new layer.
    """

    data: str
    image: str
    mode: str
    path: str
    level: int
    lower: tuple[LayerPlace, ...]
    above: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidArgumentError(f"{self.mode!r} is none of {', '.join(MODES)}")
        if self.mode == "file" and not self.path.startswith("/"):
            raise InvalidArgumentError("a commit to a file needs the file's absolute path")
        check_level(self.level)
