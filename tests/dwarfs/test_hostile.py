"""Images that are damaged, or made to mislead: refused or served right, fast, in little memory."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fimd.dwarfs import Image
from fimd.dwarfs.format import Compression, SectionType
from fimd.dwarfs.sections import load, pack_section

Probe = Callable[[Path], Any]

SECONDS = 1.0
MEMORY = 256 << 20

# what the reference serves as well, or serves with a fault: sound as far as files' bytes go
SERVED = {
    "base",
    "empty-uids-gids",
    "feature-sparsefiles-w-o-hole-index",
    "full-ish",
    "history-bitflip",
    "index-bitflip",
    "minor-2-no-index-",
    "minor-4",
    "no-index",
    "no-padding",
    "no-typeName",
    "without-gids",
    "without-options",
    "zero-size-chunk",
    "zstd-block-sha-bitflip",
}
FAULTY = {
    "feature-sparsefiles-w-o-hole-index",
    "history-bitflip",
    "index-bitflip",
    "zstd-block-sha-bitflip",
}


def names(folder: str) -> list[Any]:
    root = Path(__file__).parents[3] / "shared" / "images" / folder
    found = sorted(path.stem for path in root.glob("*.dwarfs"))
    return found or [pytest.param("none", marks=pytest.mark.skip("no sample images"))]


def within_bounds(outcome: Any, seconds: float = SECONDS) -> bool:
    return (
        not outcome.text.startswith("bug") and outcome.seconds < seconds and outcome.peak < MEMORY
    )


@pytest.mark.parametrize("name", names("upstream/badfs"))
def test_a_fuzzed_image_of_the_reference_project_is_refused(
    images: Path, probe: Probe, name: str
) -> None:
    outcome = probe(images / f"upstream/badfs/{name}.dwarfs")
    assert outcome.refused, outcome
    assert within_bounds(outcome), outcome


@pytest.mark.parametrize("name", names("damaged"))
def test_a_damaged_image_is_refused_or_served_right(images: Path, probe: Probe, name: str) -> None:
    outcome = probe(images / f"damaged/{name}.dwarfs")
    assert within_bounds(outcome), outcome
    assert outcome.refused == (name not in SERVED), outcome
    assert outcome.text.startswith("faulty") == (name in FAULTY), outcome


def test_an_unknown_feature_is_refused(images: Path, probe: Probe) -> None:
    outcome = probe(images / "upstream/test/future-features.dwarfs")
    assert "this-feature-will-never-exist" in outcome.text
    assert outcome.refused


SUBJECTS = (
    "made/tiny-raw",
    "made/tiny",
    "made/mix-pack-all",
    "made/mix-pack-all+plain",
    "made/sparse-S16-packall",
    "upstream/bugs/gh307",
    "upstream/compat/compat-v0.2.3",
    "upstream/compat/compat-v0.3.0",
    "upstream/compat/compat-v0.9.10",
)


def parts(path: Path) -> list[tuple[int, int, bytes]]:
    """Type, compression and payload of the sections; the metadata's are decompressed."""
    found = []
    with Image.open(path) as image:
        for section in image.table.sections:
            if section.type == SectionType.BLOCK:
                header, payload = load(image.source, image.table, section)
                found.append((section.type, header.compression, bytes(payload)))
            elif section.type in (SectionType.METADATA_V2_SCHEMA, SectionType.METADATA_V2):
                content = image.section_content(section, 1 << 24)
                found.append((section.type, Compression.NONE, content))
    return found


def changed(data: bytes, source: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 3, 8))):
        if not out:
            break
        # the beginnings are where the structure is
        at = source.randrange(len(out) if source.random() < 0.6 else min(len(out), 64))
        match source.randrange(5):
            case 0 | 1:
                out[at] ^= 1 << source.randrange(8)
            case 2:
                out[at] = source.choice((0, 1, 127, 128, 255))
            case 3:
                del out[at : at + source.randrange(1, 9)]
            case 4:
                out[at:at] = source.randbytes(source.randrange(1, 9))
    return bytes(out)


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    name=st.sampled_from(SUBJECTS),
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["bytes", "schema", "metadata", "block"]),
)
def test_a_mutated_image_never_breaks_the_reader(
    images: Path, probe: Probe, tmp_path: Path, name: str, seed: int, kind: str
) -> None:
    """With wrong checksums (`bytes`), and with checksums computed anew, as an attacker would."""
    source = random.Random(seed)
    original = images / f"{name}.dwarfs"
    if kind == "bytes" or "v0.2" in name:
        data = changed(original.read_bytes(), source)
    else:
        target = {
            "schema": SectionType.METADATA_V2_SCHEMA,
            "metadata": SectionType.METADATA_V2,
            "block": SectionType.BLOCK,
        }[kind]
        sections = [
            (number, compression, changed(payload, source) if number == target else payload)
            for number, compression, payload in parts(original)
        ]
        data = b"".join(
            pack_section(index, number, compression, payload) + payload
            for index, (number, compression, payload) in enumerate(sections)
        )
    path = tmp_path / "mutated.dwarfs"
    path.write_bytes(data)
    outcome = probe(path)
    assert within_bounds(outcome), outcome


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, images: Path, probe: Probe) -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(600 << 20))
    schema = parts(images / "made/tiny-raw.dwarfs")[1][2]
    path = tmp_path / "bomb.dwarfs"
    path.write_bytes(
        pack_section(0, SectionType.METADATA_V2_SCHEMA, Compression.NONE, schema)
        + schema
        + pack_section(1, SectionType.METADATA_V2, Compression.ZSTD, bomb)
        + bomb
    )
    outcome = probe(path)
    assert outcome.refused
    assert within_bounds(outcome), outcome
    assert outcome.peak < 64 << 20


@pytest.mark.parametrize("kind", ["directory", "fifo", "empty", "text", "device"])
def test_what_is_no_image_is_refused_at_once(tmp_path: Path, probe: Probe, kind: str) -> None:
    path = tmp_path / "thing"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "empty":
            path.touch()
        case "text":
            path.write_text("DWARFS is only the beginning of the magic" * 100)
        case "device":
            path = Path("/dev/zero")
    outcome = probe(path)
    assert outcome.refused, outcome
    assert within_bounds(outcome), outcome
