"""Whatever tree goes in comes out again, in every attribute."""

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fimd.dwarfs import Image
from fimd.dwarfs.verify import verify
from fimd.dwarfs.write import LEVELS, create
from tests.dwarfs.write.trees import Made, found

NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"\xff\xfe", b"line\nbreak", b" ", b"-", b"..."]),
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda name: name not in {b".", b".."}),
    st.integers(1, 255).map(lambda size: b"n" * size),
)
TARGETS = st.binary(min_size=1, max_size=40).map(lambda target: target.replace(b"\0", b"/"))
CONTENTS = st.one_of(
    st.binary(max_size=64),
    st.sampled_from([b"", b"same", b"same again" * 1000]),
    # long enough for segments to be found, and partly alike
    st.tuples(st.integers(0, 3), st.integers(0, 9000), st.binary(max_size=9)).map(
        lambda seed: seed[2] + bytes((i * i * (seed[0] + 7)) >> 4 & 255 for i in range(seed[1]))
    ),
)
OTHERS = st.sampled_from(
    [
        (stat.S_IFCHR, 0),  # overlayfs's deletion
        (stat.S_IFCHR | 0o600, 0x103),
        (stat.S_IFBLK | 0o660, 0x801),
        (stat.S_IFBLK | 0o660, (1 << 40) + 5),
        (stat.S_IFIFO | 0o644, 0),
        (stat.S_IFSOCK | 0o755, 0),
    ]
)
OWNERS = st.sampled_from([0, 1, 1000, (1 << 32) - 2])
TIMES = st.one_of(st.integers(0, (1 << 33) - 1), st.sampled_from([0, 1_700_000_000])).map(
    lambda seconds: seconds * 10**9
)


@st.composite
def trees(draw: st.DrawFn) -> Made:
    made = Made()
    directories = [b""]
    taken = {b""}
    identities = 0
    for _ in range(draw(st.integers(0, 25))):
        parent = draw(st.sampled_from(directories))
        path = parent + b"/" + draw(NAMES) if parent else draw(NAMES)
        if path in taken:
            continue
        taken.add(path)
        facts = {"uid": draw(OWNERS), "gid": draw(OWNERS), "mtime_ns": draw(TIMES)}
        match draw(st.integers(0, 5)):
            case 0:
                made.directory(path, draw(st.integers(0, 0o7777)), **facts)
                directories.append(path)
            case 1:
                made.link(path, draw(TARGETS))
            case 2:
                made.other(path, *draw(OTHERS))
            case 3 if [entry for entry in made.entries if entry.identity is not None]:
                old = draw(st.sampled_from([e for e in made.entries if e.identity is not None]))
                made.again(path, old)
            case 4:
                identities += 1
                made.file(path, draw(CONTENTS), identity=identities, **facts)
            case _:
                made.file(path, draw(CONTENTS), mode=draw(st.integers(0, 0o7777)), **facts)
    return made


@pytest.mark.parametrize("level", [0, 1, 3, 7, 8])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=trees())
def test_any_tree_comes_back_as_it_was(level: int, made: Made) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image"
        made.create(image, level=level)
        assert found(image) == made.expected()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 1 << 18)),
        min_size=1,
        max_size=8,
    )
)
def test_holes_come_back_as_zeros_wherever_they_are(parts: list[tuple[bool, int]]) -> None:
    made = Made()
    made.file(b"f", *(size if hole else b"x" * size for hole, size in parts))
    with tempfile.TemporaryDirectory() as scratch:
        for sparse in (True, False):
            image = Path(scratch) / "image"
            made.create(image, level=1, sparse=sparse)
            assert found(image) == made.expected()


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_every_level_gives_back_the_same_tree(level: int, tmp_path: Path) -> None:
    made = Made()
    noise = os.urandom(300_000)
    made.directory(b"d", 0o750)
    made.file(b"d/noise", noise)
    made.file(b"d/shifted noise", b"shift", noise[1000:], b"end")
    made.file(b"text", b"All work and no play makes Jack a dull boy.\n" * 40_000)
    made.file(b"program", b"\x7fELF" + bytes(14) + b"\x3e\0" + noise[:5000])
    summary = made.create(tmp_path / "image", level=level)
    assert found(tmp_path / "image") == made.expected()
    assert summary.bytes_out == (tmp_path / "image").stat().st_size
    assert (summary.bytes_repeated > 200_000) == (LEVELS[level].segments > 0)


def test_more_data_than_a_block_is_cut_into_blocks(tmp_path: Path) -> None:
    made = Made()
    made.file(b"large", *(os.urandom(700_000) for _ in range(10)))
    summary = made.create(tmp_path / "image", level=1)
    assert summary.blocks == 7
    assert found(tmp_path / "image") == made.expected()


def test_nanoseconds_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    times = [0, 1, 1_700_000_000_123_456_789, 5_000_000_500]
    made = Made()
    for number, mtime_ns in enumerate(times):
        made.file(b"%d" % number, b"x", mtime_ns=mtime_ns)
    made.create(tmp_path / "image", subsecond=True)
    with Image.open(tmp_path / "image") as image:
        assert [facts.mtime_ns for _, facts in image.walk()][1:] == times
    made.create(tmp_path / "image", subsecond=False)
    with Image.open(tmp_path / "image") as image:
        kept = [facts.mtime_ns for _, facts in image.walk()][1:]
    assert kept == [time // 10**9 * 10**9 for time in times]


@pytest.mark.parametrize(("time", "kept"), [(-1, 0), ((1 << 40) * 10**9, (1 << 33) - 1)])
def test_a_time_that_no_image_can_hold_becomes_the_nearest(
    time: int, kept: int, tmp_path: Path
) -> None:
    made = Made()
    made.file(b"f", b"", mtime_ns=time)
    assert made.create(tmp_path / "image").times_clamped == 1
    with Image.open(tmp_path / "image") as image:
        assert image.stat(1).mtime_ns == kept * 10**9


def test_a_tree_of_nothing_but_its_root_is_an_image(tmp_path: Path) -> None:
    made = Made()
    made.create(tmp_path / "image")
    assert list(found(tmp_path / "image")) == [b""]


def test_a_hole_larger_than_a_chunk_can_say_is_kept(tmp_path: Path) -> None:
    made = Made()
    for number, size in enumerate((1 << 45, (1 << 45) + 7, 5)):
        made.file(b"%d" % number, b"start", size, b"end")
    made.create(tmp_path / "image", level=1)
    with Image.open(tmp_path / "image") as image:
        assert verify(image) == []
        sizes = {path: facts.size for path, facts in image.walk()}
        assert sizes[b"0"] == (1 << 45) + 8
        assert sizes[b"1"] == (1 << 45) + 15
        inode = image.lookup(0, b"1")
        assert inode is not None
        assert bytes(image.read(inode, (1 << 45) + 10, 9)) == b"\0\0end"
        assert image.stat(inode).allocated == 8


@pytest.mark.parametrize("made_large", [False, True])
def test_holes_are_only_kept_where_there_is_much_of_them(made_large: bool, tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.write(b"x")
        file.truncate((64 if made_large else 1) << 20)
    image = tmp_path.parent / "image.dwarfs"
    create(tmp_path, image, level=1)
    with Image.open(image) as opened:
        assert (opened.metadata.features == {b"sparsefiles"}) == made_large
        assert opened.stat(1).size == (64 if made_large else 1) << 20
