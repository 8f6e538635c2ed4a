"""The rooms of the daemon: what may know of what."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fimd

ROOMS = (
    *("base", "dwarfs", "flatimage", "mounts", "store", "layers", "trees", "commits", "overlays"),
    *("casefold", "stacks", "images", "launch", "instances", "jobs", "bus", "service"),
    "diagnosis",
)
"""From the bottom to the top."""
LIBRARIES = ("dwarfs", "flatimage")
SOURCES = Path(fimd.__file__).parent


def imports(room: str) -> Iterator[tuple[Path, str]]:
    """Every module of the project that a room's modules import, with theirs."""
    for path in (SOURCES / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            yield from ((path, name) for name in names if name.startswith("fimd."))


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_place_and_says_what_is_at_home_there() -> None:
    found = {path.parent.name for path in SOURCES.glob("*/__init__.py")}
    assert found == set(ROOMS)
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((SOURCES / room / "__init__.py").read_text()))


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_knows_of_one_above_it(room: str) -> None:
    above = ROOMS[ROOMS.index(room) + 1 :]
    assert [found for found in imports(room) if room_of(found[1]) in above] == []


@pytest.mark.parametrize("room", LIBRARIES)
def test_a_library_knows_of_nothing_else(room: str) -> None:
    assert [found for found in imports(room) if room_of(found[1]) != room] == []


def test_only_the_daemon_and_its_entry_lie_outside_of_the_rooms() -> None:
    files = {path.name for path in SOURCES.glob("*.py")}
    assert files == {"__init__.py", "__main__.py", "daemon.py"}


def test_nothing_below_the_bus_knows_of_dbus() -> None:
    for room in ROOMS[: ROOMS.index("bus")]:
        for path in (SOURCES / room).rglob("*.py"):
            assert "dbus_next" not in path.read_text(), path
