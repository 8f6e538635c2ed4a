"""What the tests of layers make by hand, look at, and break off."""

import os
import signal
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fimd.dwarfs.write import create
from fimd.flatimage.chain import read_chain
from fimd.flatimage.layout import find_layout
from fimd.layers.place import LayerPlace
from fimd.layers.source import LayerSource
from fimd.trees.merged import Merged, open_layers

Fill = Callable[[Path], None]
"""Puts something into an empty directory."""
MakeLayer = Callable[[Fill], LayerPlace]
"""The fixture `make_layer`."""


def whiteout(path: Path) -> None:
    """Make a deletion as kernel overlayfs does."""
    os.mknod(path, 0o020000, 0)


def sources(*places: LayerPlace) -> tuple[LayerSource, ...]:
    """What layers are to who looks only at what is in them."""
    return tuple(
        LayerSource(place.path, place.offset, place.size, 0, number, place.path.encode())
        for number, place in enumerate(places)
    )


def directories(*paths: str) -> Fill:
    """Return what makes directories below another."""

    def fill(top: Path) -> None:
        for path in paths:
            (top / path).mkdir(parents=True)

    return fill


def chain(image: Path) -> list[LayerPlace]:
    """The image's own layers."""
    with image.open("rb") as file:
        layers = read_chain(file.fileno(), find_layout(file.fileno())).layers
    return [LayerPlace(str(image), layer.offset, layer.size) for layer in layers]


def shown(places: list[LayerPlace]) -> dict[bytes, tuple[int, bytes]]:
    """What layers show together: modes, and contents of files or targets of links."""
    found = {}
    with open_layers(places) as images:
        for path, node in Merged(images).walk():
            image, inode = node.parts[0]
            facts = node.attributes
            content = b""
            if stat.S_ISREG(facts.mode):
                content = bytes(image.read(inode, 0, facts.size))
            elif stat.S_ISLNK(facts.mode):
                content = image.readlink(inode)
            found[path] = (facts.mode, content)
    return found


def killed_at(
    number: int, calls: Iterable[tuple[ModuleType, str]], work: Callable[[], object]
) -> bool:
    """Work in a child that is killed before its n-th call of some functions; tell whether it was.

    The functions are given by module and name.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert status in {0, signal.SIGKILL}
        return bool(status)
    try:
        left = number

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for module, name in calls:
            setattr(module, name, counted(getattr(module, name)))
        work()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.fixture
def make_layer(tmp_path: Path) -> MakeLayer:
    """Pack what a function puts into an empty directory."""
    made = iter(range(1000))

    def make(fill: Fill) -> LayerPlace:
        number = next(made)
        source = tmp_path / f"source-{number}"
        source.mkdir()
        fill(source)
        output = tmp_path / f"{number}.layer"
        create(source, output, level=1, subsecond=True)
        return LayerPlace(str(output), 0, output.stat().st_size)

    return make
