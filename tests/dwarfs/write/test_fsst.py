"""Encoded strings are shorter, and the reader decodes them."""

from hypothesis import given
from hypothesis import strategies as st

from fimd.dwarfs.fsst import HEADER_SIZE, decoder
from fimd.dwarfs.write.fsst import encode


@given(st.lists(st.binary(max_size=40)))
def test_every_string_comes_back(strings: list[bytes]) -> None:
    encoded = encode(strings)
    decode = decoder(encoded.table, 40)
    assert [decode(string) for string in encoded.strings] == strings


def test_names_that_have_much_in_common_shrink() -> None:
    names = [b"module_%05d.cpython-311.pyc" % number for number in range(2000)]
    encoded = encode(names)
    assert sum(map(len, encoded.strings)) + len(encoded.table) < sum(map(len, names)) / 3
    assert encode(names) == encoded


def test_bytes_that_no_symbol_covers_are_escaped() -> None:
    strings = [bytes([byte]) for byte in range(256)]
    encoded = encode(strings)
    assert len(encoded.table) == HEADER_SIZE + 255
    assert sorted(map(len, encoded.strings)) == [1] * 255 + [2]
