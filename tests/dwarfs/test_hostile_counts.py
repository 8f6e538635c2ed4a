"""Metadata of a KiB or so that stands for very much: refused, or read in little memory and time."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from fimd.dwarfs.fsst import HEADER_SIZE, VERSION
from fimd.dwarfs.write.frozen import Numbers, Records, Some, StringSet, Struct, column
from tests.dwarfs import hostile
from tests.dwarfs.hostile import (
    DEVICE,
    DIRECTORY,
    FILE,
    LINK,
    Inodes,
    directories,
    entries,
    numbers,
    same,
    strings,
    zeros,
)

SECONDS = (
    2.0  # of CPU, importing nothing; some are in between because they are allowed what they do
)
MEMORY = 112 << 20  # bytes, of which the interpreter with its modules has 40 MiB
MANY = 8 * (12 << 20)  # as many as metadata of 12 MiB has bits
SOME = 60_000  # within what any image may have
FEW = 600  # numbers that differ, which take a byte or two each

Tables = Mapping[int, Any]


def of_many(**options: Any) -> bytes:
    return hostile.image({}, **options)


def files(count: int, pieces: Records, table: Any, shared: Any = None) -> Tables:
    """A root directory with files."""
    return {
        1: pieces,
        2: directories(1, 1 + count),
        3: Inodes({DIRECTORY: 1, FILE: count}),
        4: table,
        19: entries(range(count), [*range(1, count + 1, 2), *range(2, count + 1, 2)]),
        20: shared,
        24: strings(*(b"%05d" % number for number in range(count))),
    }


def chunks(count: int, size: int = 16) -> Records:
    return Records({1: zeros(count), 2: zeros(count), 3: same(size, count)})


def deep(levels: int) -> Tables:
    """Directories in directories."""
    return {
        2: directories(*range(1, levels + 1), levels),
        3: Inodes({DIRECTORY: levels}),
        4: numbers(0),
        19: entries([0] * (levels - 1), range(1, levels)),
        24: strings(b"d"),
    }


def table_of_symbols() -> bytes:
    """One symbol of eight bytes."""
    counts = bytes([0, 0, 0, 0, 0, 0, 0, 1])
    head = bytes([1, 1, 0, 0]) + VERSION.to_bytes(4, "little") + b"\0" + counts
    assert len(head) == HEADER_SIZE
    return head + b"12345678"


def compressed(size: int) -> Some:
    """One string of eight times the bytes that are stored."""
    symbols = Some(table_of_symbols())
    return Some(Struct({1: bytes(size), 2: symbols, 3: numbers(0, size)}))


ABSURD: dict[str, Tables] = {
    "owners": {7: Numbers(zeros(MANY)), 8: Numbers(zeros(MANY))},
    "modes": {9: Numbers(same(DIRECTORY, SOME))},
    "entries of no width": {
        2: directories(1, MANY),
        19: Some(Records({1: zeros(MANY), 2: zeros(MANY)})),
    },
    "directories": {
        2: Records({1: zeros(MANY + 1), 2: zeros(MANY + 1)}),
        3: Records({2: zeros(MANY), 4: zeros(MANY)}),
    },
    "links that are counted": {
        18: Some(Struct({1: True})),
        19: Some(Records({1: zeros(MANY), 2: zeros(MANY)})),
    },
    "devices": {
        3: Records({2: zeros(1), 4: zeros(1)}),
        17: Some(Numbers(zeros(MANY))),
    },
    "chunks": {1: Records({1: zeros(MANY), 2: zeros(MANY), 3: zeros(MANY)})},
    "a table of chunks": {4: Numbers(zeros(MANY))},
    "link targets' numbers": {6: Numbers(zeros(MANY))},
    "names": {24: Some(Struct({1: b"x", 3: Numbers(zeros(MANY))}))},
    "names by their lengths": {24: Some(Struct({1: b"", 3: Numbers(zeros(MANY)), 4: True}))},
    "shared files": {20: Some(Numbers(zeros(MANY)))},
    "shared files, packed": {
        18: Some(Struct({1: True, 5: True, 8: True})),
        20: Some(numbers(1 << 31, 1 << 31)),
    },
    "sizes of holes": {
        27: Some(StringSet(frozenset({b"sparsefiles"}))),
        34: Some(0),
        35: Some(Numbers(zeros(MANY))),
    },
    "an old format's entries": {
        2: directories(1, SOME),
        3: Records({1: zeros(SOME), 2: zeros(SOME), 3: zeros(SOME)}),
        5: Numbers(zeros(SOME)),
        19: None,
    },
    "the same name again and again": {
        2: directories(1, SOME),
        3: Inodes({DIRECTORY: 1, FILE: 1}),
        4: numbers(0, 0),
        19: entries([0] * (SOME - 1), [1] * (SOME - 1)),
        24: strings(b"name"),
    },
    "directories that share their entries": {
        2: directories(1, *([FEW, 1] * (FEW // 2))),
        3: Inodes({DIRECTORY: FEW}),
        19: entries(range(FEW - 1), range(1, FEW)),
        24: strings(*(b"%03d" % number for number in range(FEW))),
    },
    "a directory in many places": {
        2: directories(1, FEW, FEW + 1),
        3: Inodes({DIRECTORY: 2}),
        19: entries(range(FEW), [1] * FEW),
        24: strings(*(b"%03d" % number for number in range(FEW))),
    },
    "files that share their chunks": files(
        FEW,
        chunks(SOME),
        Numbers(column([*chain.from_iterable((n, SOME) for n in range(FEW // 2)), SOME])),
    ),
    "a file of a byte in each chunk": files(1, chunks(SOME, 1), numbers(0, SOME)),
    "a name of 256 KiB": {
        2: directories(1, 2),
        3: Inodes({DIRECTORY: 1, FILE: 1}),
        4: numbers(0, 0),
        19: entries([0], [1]),
        24: strings(b"n" * (1 << 18)),
    },
    "a link's target of 256 KiB": {
        2: directories(1, 1 + FEW),
        3: Inodes({DIRECTORY: 1, LINK: FEW}),
        6: Numbers(zeros(FEW)),
        19: entries(range(FEW), range(1, FEW + 1)),
        24: strings(*(b"%03d" % number for number in range(FEW))),
        25: strings(b"t" * (1 << 18)),
    },
    "a size cache of one file": {
        **files(1, chunks(SOME), numbers(0, SOME)),
        30: Some(Struct({1: Records({1: zeros(SOME), 2: same(16 * SOME, SOME)})})),
    },
}


ALLOWED: dict[str, Tables] = {
    "files that are all the same, in many chunks": files(
        FEW, chunks(SOME), numbers(0, SOME), Some(Numbers(zeros(FEW)))
    ),
    "links to one compressed target": {
        2: directories(1, 1 + FEW),
        3: Inodes({DIRECTORY: 1, LINK: FEW}),
        6: Numbers(zeros(FEW)),
        19: entries(range(FEW), range(1, FEW + 1)),
        24: strings(*(b"%03d" % number for number in range(FEW))),
        25: compressed(511),
    },
    "directories in directories": deep(3000),
    "whiteouts": {
        2: directories(1, 1 + FEW),
        3: Inodes({DIRECTORY: 1, DEVICE: FEW}),
        17: Some(Numbers(zeros(FEW))),
        19: entries(range(FEW), range(1, FEW + 1)),
        24: strings(*(b"%03d" % number for number in range(FEW))),
    },
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "hostile.dwarfs"
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Path]:
    """A directory that is removed even where it is deeper than Python goes."""
    yield tmp_path / "extracted"
    subprocess.run(["rm", "-rf", tmp_path / "extracted"], check=True)


@pytest.mark.parametrize("kind", ABSURD)
def test_more_than_the_metadata_can_hold_is_refused_at_once(
    written: Callable[[bytes], Path], probe: Any, kind: str
) -> None:
    path = written(hostile.image(ABSURD[kind], padding=2 << 20))
    assert path.stat().st_size < 16 << 10
    outcome = probe(path)
    assert outcome.refused or outcome.text.startswith("faulty"), outcome
    assert outcome.seconds < SECONDS, outcome
    assert outcome.peak < MEMORY, outcome
    assert f"{path}, section METADATA_V2, offset " in outcome.text


@pytest.mark.parametrize("kind", ABSURD)
def test_it_is_refused_as_well_where_it_is_extracted(
    written: Callable[[bytes], Path], probe: Any, destination: Path, kind: str
) -> None:
    outcome = probe(written(hostile.image(ABSURD[kind])), destination)
    assert outcome.refused or "size cache" in kind, outcome
    assert outcome.seconds < SECONDS, outcome
    assert outcome.peak < MEMORY, outcome


@pytest.mark.parametrize("kind", ALLOWED)
def test_what_is_possible_takes_no_more_time_than_its_size_warrants(
    written: Callable[[bytes], Path], probe: Any, destination: Path, kind: str
) -> None:
    path = written(hostile.image(ALLOWED[kind]))
    assert path.stat().st_size < 16 << 10
    outcome = probe(path, destination)
    assert outcome.text == "extracted", outcome
    assert outcome.seconds < SECONDS, outcome
    assert outcome.peak < MEMORY, outcome


def test_a_tree_that_is_deeper_than_any_other_is_refused(
    written: Callable[[bytes], Path], probe: Any
) -> None:
    outcome = probe(written(hostile.image(deep(20_000))))
    assert "nested too deeply" in outcome.text
    assert outcome.seconds < SECONDS, outcome
    assert outcome.peak < MEMORY, outcome
