"""One place on each kind of stack for each test of the suite."""

import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.overlays.stacks import KINDS, Mounter, Place, limits_of, make_layers

HERE = Path(__file__).parent
TESTS = 200
_OF_A_NAMESPACE = "what is mounted for a plain user is shown to a user namespace: packaging/test"
_PROGRAMS = {"overlayfs": "fuse-overlayfs", "unionfs": "unionfs"}


def need(overlay: str) -> None:
    program = _PROGRAMS.get(overlay)
    if program is not None and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what looks into a stack, which everything does that needs the layers of one."""
    for item in items:
        looks = isinstance(item, pytest.Function) and "layers" in item.fixturenames
        if looks and item.path.parent == HERE:
            item.add_marker("namespaced")
            if os.getuid() != 0:
                item.add_marker(pytest.mark.skip(reason=_OF_A_NAMESPACE))


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The layers of every stack, with a directory for each test."""
    return make_layers(tmp_path_factory.mktemp("layers"), TESTS)


@pytest.fixture(scope="session")
def new_place(
    tmp_path_factory: pytest.TempPathFactory, layers: list[Path]
) -> Iterator[Callable[[str, str], Place]]:
    """Directories of stacks that are mounted once for all tests, each for one test."""
    with ExitStack() as undo:

        @functools.cache
        def mount(overlay: str, view: str) -> tuple[Path, Path, Iterator[int]]:
            need(overlay)
            mounter = Mounter(tmp_path_factory.mktemp("stack"), layers)
            undo.enter_context(mounter)
            root = undo.enter_context(mounter.mounted(overlay, view))
            return root, mounter.data / "root", itertools.count()

        def new(overlay: str, view: str) -> Place:
            root, upper, numbers = mount(overlay, view)
            name = f"case{next(numbers)}"
            return Place(root / name, upper / name, limits_of(overlay, view))

        yield new


@pytest.fixture(params=KINDS, ids="-".join)
def place(request: pytest.FixtureRequest, new_place: Callable[[str, str], Place]) -> Place:
    """A directory for this test, on every kind of stack."""
    return new_place(*request.param)
