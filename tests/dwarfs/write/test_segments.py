"""What a file repeats is found, wherever it lies, and nothing else is taken for it."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fimd.dwarfs.write.kinds import Kind
from fimd.dwarfs.write.levels import LEVELS, Level
from fimd.dwarfs.write.segments import UNIT, Block, Segmenter

SMALL = replace(LEVELS[7], block_bits=16, lookback=3)
NOISE = random.Random(0).randbytes(200_000)


class Store:
    """Files, cut into blocks and put together again."""

    def __init__(self, level: Level) -> None:
        self.blocks: list[bytes] = []
        self.segmenter = Segmenter(level, self._take)
        self.bounds = [0]

    def _take(self, block: Block) -> None:
        assert block.number == len(self.blocks)
        self.blocks.append(bytes(block.content))

    def add(self, data: bytes, kind: Kind = Kind.OTHER) -> None:
        self.segmenter.start_file(kind)
        for start in range(0, len(data), UNIT):
            self.segmenter.add(memoryview(data)[start : start + UNIT])
        self.bounds.append(len(self.segmenter.chunks))

    def files(self) -> list[bytes]:
        self.segmenter.finish()
        chunks = self.segmenter.chunks
        rows = list(zip(chunks.blocks, chunks.offsets, chunks.sizes, strict=True))
        for block, offset, size in rows:
            assert 0 < size <= len(self.blocks[block]) - offset
        return [
            b"".join(
                self.blocks[block][offset : offset + size] for block, offset, size in rows[a:b]
            )
            for a, b in zip(self.bounds, self.bounds[1:], strict=False)
        ]

    @property
    def stored(self) -> int:
        return sum(map(len, self.blocks))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 190_000), st.integers(0, 30_000)), max_size=4),
        max_size=6,
    )
)
def test_files_of_pieces_of_the_same_data_come_back(
    files: list[list[tuple[int, int]]],
) -> None:
    store = Store(SMALL)
    contents = [b"".join(NOISE[start : start + size] for start, size in file) for file in files]
    for content in contents:
        store.add(content)
    assert store.files() == contents


@pytest.mark.parametrize("shift", [0, 1, 7, 1000])
def test_a_repetition_is_found_at_any_alignment_and_to_its_ends(shift: int) -> None:
    store = Store(replace(SMALL, block_bits=20))
    store.add(NOISE)
    store.add(b"x" * shift + NOISE[5000:150_000] + b"y" * 100)
    store.files()
    assert store.stored == len(NOISE) + shift + 100
    assert len(store.segmenter.chunks) <= 4


def test_a_file_that_repeats_itself_is_stored_once() -> None:
    store = Store(replace(SMALL, block_bits=20))
    store.add(NOISE * 30)
    assert store.files() == [NOISE * 30]
    assert store.stored < len(NOISE) * 1.01


@pytest.mark.parametrize("data", [bytes(1 << 20), b"ab" * 300_000, b"12345678" * 100_000])
def test_monotonous_data_comes_back_and_makes_few_chunks(data: bytes) -> None:
    store = Store(LEVELS[7])
    store.add(data)
    assert store.files() == [data]
    assert len(store.segmenter.chunks) < 100


def test_places_are_never_dense_enough_to_fill_the_memory() -> None:
    # eight bytes that mark a place, in every sixteen
    rng = random.Random(0)
    level = LEVELS[7]
    probe = Store(level).segmenter
    marked = probe._marks(rng.randbytes(UNIT))[0]
    rng = random.Random(0)
    mark = rng.randbytes(UNIT)[marked : marked + 8]
    data = b"".join(mark + number.to_bytes(8, "big") for number in range(1 << 16))
    assert len(probe._marks(data)) >= 1 << 16
    store = Store(level)
    store.add(data)
    assert len(store.segmenter._places) < len(data) * 4 // level.spacing + 10
    assert store.files() == [data]


def test_what_is_shorter_than_a_segment_is_not_looked_for() -> None:
    store = Store(SMALL)
    store.add(NOISE[:20_000])
    store.add(b"-" * 5000 + NOISE[3000:6000] + b"-" * 5000)
    store.files()
    assert store.segmenter.repeated < 10_000  # of the dashes at most
    assert len(store.blocks[0]) >= 28_000


def test_only_the_last_blocks_are_looked_into() -> None:
    far, near = Store(SMALL), Store(SMALL)
    near.add(NOISE[:60_000] + NOISE[100_000:160_000])
    near.add(NOISE[:60_000])
    near.files()
    assert near.segmenter.repeated > 59_000
    noise = random.Random(9).randbytes(600_000)
    far.add(noise)
    far.add(noise[:60_000])
    far.files()
    assert far.segmenter.repeated == 0


def test_without_segments_everything_is_stored() -> None:
    store = Store(LEVELS[1])
    store.add(NOISE)
    store.add(NOISE)
    assert store.files() == [NOISE, NOISE]
    assert store.segmenter.repeated == 0


def test_machine_code_gets_blocks_of_its_own_where_there_is_enough() -> None:
    store = Store(SMALL)
    store.add(NOISE[:10_000], Kind.X86)
    store.add(NOISE[10_000:20_000], Kind.OTHER)
    store.files()
    assert list(map(len, store.blocks)) == [10_000, 10_000]
    store = Store(SMALL)
    store.add(NOISE[:1000], Kind.X86)
    store.add(NOISE[10_000:20_000], Kind.OTHER)
    store.files()
    assert list(map(len, store.blocks)) == [11_000]
