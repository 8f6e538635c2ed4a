"""The levels are mkdwarfs's, but for what the module's text says."""

import pytest

from fimd.dwarfs.format import Compression
from fimd.dwarfs.write import LEVELS

# level, block bits, data, its level, metadata, its level, window, step; mkdwarfs 0.15
MKDWARFS = [
    (0, 20, Compression.NONE, 0, Compression.NONE, 0, 0, 0),
    (1, 20, Compression.LZ4, 0, Compression.NONE, 0, 0, 0),
    (2, 20, Compression.LZ4HC, 9, Compression.NONE, 0, 0, 0),
    (4, 22, Compression.ZSTD, 11, Compression.NONE, 0, 4096, 1024),
    (6, 24, Compression.ZSTD, 22, Compression.NONE, 0, 4096, 512),
    (7, 24, Compression.ZSTD, 22, Compression.ZSTD, 22, 4096, 512),
    (8, 24, Compression.LZMA, 9, Compression.LZMA, 9, 4096, 256),
    (9, 26, Compression.LZMA, 9, Compression.LZMA, 9, 4096, 256),
]


@pytest.mark.parametrize(
    ("number", "bits", "data", "data_level", "metadata", "metadata_level", "window", "step"),
    MKDWARFS,
)
def test_a_level_is_as_mkdwarfs_has_it(
    number: int,
    bits: int,
    data: Compression,
    data_level: int,
    metadata: Compression,
    metadata_level: int,
    window: int,
    step: int,
) -> None:
    level = LEVELS[number]
    assert level.block_bits == bits
    assert (level.data.compression, level.data.level) == (data, data_level)
    assert (level.metadata.compression, level.metadata.level) == (metadata, metadata_level)
    assert (level.segments, level.spacing) == (window, step)


def test_segments_are_looked_for_in_32_mib_at_least() -> None:
    for level in LEVELS:
        if level.segments:
            assert level.lookback * level.block_size >= 32 << 20
