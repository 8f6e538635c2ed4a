"""What a change makes of a layer's file: it comes up whole or not at all, and nothing else does."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fimd.dwarfs.write import create
from fimd.overlays import COPY
from tests.overlays.conftest import need
from tests.overlays.stacks import KINDS, Mounter, limits_of
from tests.support.files import is_locked
from tests.support.tmpfs import tmpfs

LONG_AGO = 1_000_000_000 * 10**9
BIG = 12 << 20
HOLE = 64 << 20

OVERLAYS = [kind for kind in KINDS if kind[0] != COPY]
"""Where a copy stands in, all comes up before anything is changed."""
kinds = pytest.mark.parametrize("kind", OVERLAYS, ids="-".join)


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A layer, and what its largest file holds."""
    base = tmp_path_factory.mktemp("lower")
    inner = base / "tree" / "outer" / "inner"
    inner.mkdir(parents=True)
    content = os.urandom(BIG)
    (inner / "big").write_bytes(content)
    (inner / "small").write_text("small\n")
    (inner / "link").symlink_to("small")
    with (inner / "sparse").open("wb") as file:
        file.truncate(HOLE)
        file.seek(HOLE)
        file.write(b"end")
    for path in (inner, inner.parent):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    create(base / "tree", base / "a.layer", level=1, subsecond=True)
    return base / "a.layer", content


@pytest.fixture
def mounter(kind: tuple[str, str], lower: tuple[Path, bytes], tmp_path: Path) -> Iterator[Mounter]:
    """What mounts the stack of a data directory with 8 MiB of room."""
    need(kind[0])
    with ExitStack() as undo:
        (tmp_path / "stack").mkdir()
        data = undo.enter_context(tmpfs(tmp_path / "room", "8m"))
        yield undo.enter_context(Mounter(tmp_path / "stack", [lower[0]], data))


@pytest.fixture
def stack(kind: tuple[str, str], mounter: Mounter) -> Iterator[tuple[Path, Path]]:
    """The mounted stack, and its upper."""
    with mounter.mounted(*kind) as root:
        yield root, mounter.data / "root"


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


ACTIONS: dict[str, Callable[[Path], None]] = {
    "append": append,
    "shorten": lambda path: os.truncate(path, BIG - 1),
    "link": lambda path: os.link(path, path.with_name("another")),
    "rename": lambda path: os.rename(path, path.with_name("another")),
}


@kinds
@pytest.mark.parametrize("action", list(ACTIONS))
def test_a_file_for_whose_copy_there_is_no_room_stays_as_it_was(
    stack: tuple[Path, Path], lower: tuple[Path, bytes], action: str
) -> None:
    root, _ = stack
    big = root / "outer" / "inner" / "big"
    with pytest.raises(OSError, match="No space"):
        ACTIONS[action](big)
    assert big.read_bytes() == lower[1]
    assert sorted(os.listdir(big.parent)) == ["big", "link", "small", "sparse"]
    (root / "made").write_bytes(bytes(range(256)) * (6 << 12))  # the room is there again
    assert (root / "made").stat().st_size == 6 << 20


@kinds
def test_what_is_changed_leaves_the_times_of_the_directories_above(
    stack: tuple[Path, Path],
) -> None:
    root, upper = stack
    inner = root / "outer" / "inner"
    append(inner / "small")
    for path in (inner, inner.parent):
        assert path.stat().st_mtime_ns == LONG_AGO
    (inner / "made").touch()
    assert inner.stat().st_mtime_ns > LONG_AGO
    assert inner.parent.stat().st_mtime_ns == LONG_AGO
    assert sorted(os.listdir(upper / "outer" / "inner")) == ["made", "small"]


@kinds
def test_what_was_read_before_is_read_as_it_is_now(stack: tuple[Path, Path]) -> None:
    inner = stack[0] / "outer" / "inner"
    small, other = inner / "small", inner / "other"
    texts = [small.read_text() for _ in range(2)]
    small.chmod(0o600)  # which copies it up
    texts.append(small.read_text())
    append(small)
    texts.append(small.read_text())
    os.truncate(small, 3)
    texts.append(small.read_text())
    other.write_text("other")
    assert other.read_text() == "other"
    other.replace(small)
    texts.append(small.read_text())
    assert texts == ["small\n"] * 3 + ["small\nmore", "sma", "other"]


@kinds
def test_a_name_that_was_not_there_is_found_once_it_is(stack: tuple[Path, Path]) -> None:
    root, _ = stack
    ways: dict[str, Callable[[Path], object]] = {
        "file": Path.touch,
        "directory": Path.mkdir,
        "symlink": lambda path: path.symlink_to("nowhere"),
        "link": lambda path: path.hardlink_to(root / "outer" / "inner" / "small"),
        "renamed": (root / "file").rename,
        "fifo": os.mkfifo,
    }
    for name in ways:
        for _ in range(2):
            assert not os.path.lexists(root / name)
    for name, make in ways.items():
        make(root / name)
        assert os.path.lexists(root / name)
    assert not os.path.lexists(root / "file")


@kinds
def test_a_change_of_a_directory_copies_nothing_that_is_in_it(stack: tuple[Path, Path]) -> None:
    root, upper = stack
    (root / "outer" / "inner").chmod(0o700)
    assert os.listdir(upper / "outer" / "inner") == []


@kinds
def test_a_hole_of_a_layers_file_stays_one(stack: tuple[Path, Path], kind: tuple[str, str]) -> None:
    root, upper = stack
    sparse = root / "outer" / "inner" / "sparse"
    if "holes of layers" in limits_of(*kind):
        with pytest.raises(OSError, match="No space"):
            sparse.chmod(0o600)
        return
    sparse.chmod(0o600)
    assert sparse.stat().st_size == HOLE + 3
    assert (upper / "outer" / "inner" / "sparse").stat().st_blocks * 512 < 1 << 20
    with sparse.open("rb") as file:
        file.seek(HOLE)
        assert file.read() == b"end"


@kinds
def test_a_lock_by_a_name_that_was_made_before_is_seen_by_another(
    kind: tuple[str, str], mounter: Mounter
) -> None:
    with mounter.mounted(*kind) as root:
        (root / "one").touch()
        os.link(root / "one", root / "two")
    with mounter.mounted(*kind) as root, (root / "one").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_locked(root / "two", "flock") == ("locks by another name" not in limits_of(*kind))
