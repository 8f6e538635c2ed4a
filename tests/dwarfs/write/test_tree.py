"""Entries that are no tree are refused, by name."""

import stat

import pytest

from fimd.dwarfs.write import Entry, PackError
from fimd.dwarfs.write.tree import build

ROOT = Entry(b"", stat.S_IFDIR)
FILE = stat.S_IFREG
LINK = stat.S_IFLNK


def test_a_directory_comes_right_before_what_it_holds() -> None:
    paths = [b"a", b"a/b", b"a/b/c", b"a\x01", b"a b"]
    modes = [stat.S_IFDIR, stat.S_IFDIR, FILE, FILE, FILE]
    entries = [Entry(path, mode) for path, mode in zip(paths, modes, strict=True)]
    tree = build([*reversed(entries), ROOT])
    assert [entry.path for entry in tree.entries] == [b"", b"a", b"a/b", b"a/b/c", b"a\x01", b"a b"]
    assert tree.parents.tolist() == [0, 0, 1, 2, 0, 0]


def test_names_of_one_file_are_one_inode() -> None:
    tree = build(
        [ROOT, *(Entry(name, FILE, identity=5) for name in (b"a", b"b")), Entry(b"c", FILE)]
    )
    assert tree.inodes.tolist() == [0, 1, 1, 2]
    assert tree.firsts == [0, 1, 3]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "no root"),
        ([Entry(b"", FILE)], "no root"),
        ([ROOT, Entry(b"a", FILE), Entry(b"a", FILE)], "a: occurs twice"),
        ([ROOT, Entry(b"a/b", FILE)], "a/b: lies in what is no directory"),
        ([ROOT, Entry(b"a", FILE), Entry(b"a/b", FILE)], "a/b: lies in what is no directory"),
        ([ROOT, Entry(b"..", FILE)], "has a name"),
        ([ROOT, Entry(b"a/", FILE)], "has a name"),
        ([ROOT, Entry(b"n" * 256, FILE)], "has a name"),
        ([ROOT, Entry(b"a\0b", FILE)], "has a name"),
        ([ROOT, Entry(b"a", 0)], "unknown file type"),
        ([ROOT, Entry(b"a", LINK, target=b"x" * 4097)], "has a target"),
        ([ROOT, Entry(b"a", LINK, target=b"")], "has a target"),
        ([ROOT, Entry(b"\xff\n", 0)], r"\\xff"),
    ],
)
def test_what_no_image_can_hold_is_refused(entries: list[Entry], message: str) -> None:
    with pytest.raises(PackError, match=message):
        build(entries)
