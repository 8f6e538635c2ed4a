"""What is decoded of directories before it is asked for."""

import stat
from collections.abc import Iterator

from fimd.dwarfs.listings import Entry, Listings
from fimd.dwarfs.tree import Attributes

TREE = {0: [1, 4, 9], 1: [2, 3], 2: [], 3: [10], 4: [11, 12]}
REPLY = 2  # entries that have room in a reply


class Told:
    """Listings of TREE for a reader, and what was decoded of it."""

    def __init__(self) -> None:
        self.decoded: list[tuple[int, int]] = []
        self.listings = Listings(self._listing)

    def _listing(self, directory: int, start: int) -> Iterator[Entry]:
        if directory not in TREE:
            raise NotADirectoryError
        for inode in TREE[directory][start:]:
            self.decoded.append((directory, inode))
            mode = stat.S_IFDIR if inode in TREE else stat.S_IFREG
            yield b"%d" % inode, Attributes(inode, mode, 1, 0, 0, 0, 0, 0, 0, 0, 0)

    def read(self, directory: int) -> list[bytes]:
        """List a directory as the kernel does, until there is nothing more."""
        names: list[bytes] = []
        self.listings.opened(directory)
        self.listings.prepare()
        while True:
            start = len(names)
            reply = list(self.listings.entries(directory, start))
            given = [facts for _, facts in reply[:REPLY]]
            names += [name for name, _ in reply[:REPLY]]
            self.listings.replied(directory, start, given, full=len(reply) > REPLY)
            self.listings.prepare()
            if not reply:
                return names


def names(directory: int) -> list[bytes]:
    return [b"%d" % inode for inode in TREE[directory]]


def test_a_reader_gets_every_directory_whatever_its_order() -> None:
    for order in ([0, 1, 2, 3, 4], [0, 4, 1, 3, 2], [3, 3, 0, 0, 4], [2, 0, 1, 3]):
        told = Told()
        assert [told.read(directory) for directory in order] == list(map(names, order))


def test_a_reader_that_goes_down_in_order_finds_the_next_directory_decoded() -> None:
    told = Told()
    told.read(0)
    assert {where for where, _ in told.decoded} == {0}  # it may not be going anywhere
    told.read(1)
    for directory in (2, 3, 4):
        assert [inode for where, inode in told.decoded if where == directory] == TREE[directory]
        del told.decoded[:]
        told.read(directory)
        assert directory not in {where for where, _ in told.decoded}


def test_another_order_is_not_followed_until_it_is_the_expected_one_again() -> None:
    told = Told()
    told.read(0)
    told.read(4)
    del told.decoded[:]
    told.read(0)
    assert {where for where, _ in told.decoded} == {0}
    told.read(1)
    assert {where for where, _ in told.decoded} == {0, 1}
    told.read(3)  # not 2, the first in 1
    told.read(4)
    assert told.decoded.count((4, 11)) == 1


def test_a_directory_that_cannot_be_decoded_is_an_error_only_where_it_is_asked_for() -> None:
    told = Told()
    told.listings.opened(77)
    told.listings.prepare()
    assert told.read(4) == names(4)
