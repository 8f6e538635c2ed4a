"""How the daemon grows with layers, instances, files in a layer, and the size of an image.

Each curve is a few points; its exponent is fitted to what lies above the first point's value, so
that 1 is linear whatever the constant part. Worse than linear, or a step from one point to the
next, is a failure.
"""

import contextlib
import os
import statistics
import struct
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from subprocess import Popen
from typing import Final

from fimd.dwarfs.format import Compression, SectionType
from fimd.dwarfs.sections import load, pack_section, read_table
from fimd.dwarfs.source import Source
from fimd.dwarfs.write import create
from fimd.flatimage.chain import LENGTH
from tests.bench.rows import Row
from tests.bench.timing import exponent, seconds
from tests.bench.world import check_room, make_image, make_layers, make_trees, new_session, resident
from tests.conftest import make_rootfs
from tests.support.session import Session, wait_for

_LAYERS: Final = (1, 10, 30, 100, 300)
_INSTANCES: Final = (1, 10, 30, 100, 200)
_FILES: Final = (1_000, 10_000, 100_000, 1_000_000)
_GIGABYTES: Final = (1, 2, 5, 10, 20)
_RUNS: Final = 5
_LINEAR: Final = 1.15
"""The largest exponent that is taken for linear: what is left is noise."""
_NOISE: Final = 0.3
"""What the first point's value may change by with no meaning."""
_FLAT: Final = 1.1
"""What the memory of the daemon may grow by where it is to stay the same."""
_HOLE: Final = 16 << 20
_STEP: Final = 2.0
"""How much more than its share of the growth one step may have."""

Points = list[tuple[float, float]]


def measure() -> Iterator[Row]:
    """Measure all four curves."""
    with new_session() as session, tempfile.TemporaryDirectory(prefix="fimd-bench-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        yield from _layers(session, scratch)
        yield from _instances(session, scratch)
        yield from _files(session, scratch)
        yield from _size(session, scratch)


def _first_start(session: Session, image: Path) -> float:
    """Return the median time of a start that finds nothing mounted, in milliseconds."""
    taken = []
    for number in range(_RUNS + 1):
        session.output("fimctl", "prune")
        wait_for(lambda: not session.mounts(), seconds=60)
        start = partial(session.output, str(image), "fim-exec", "true", seconds=120)
        if number:
            taken.append(seconds(start) * 1e3)
        else:
            start()
    return statistics.median(taken)


def _layers(session: Session, scratch: Path) -> Iterator[Row]:
    check_room(_LAYERS[-1], session)
    trees = make_trees(scratch / "many", _LAYERS[-1])
    layers = make_layers(trees, scratch / "many")
    times: Points = []
    memory: Points = []
    for count in _LAYERS:
        image = session.adopt(make_image(layers[:count], scratch / "image"), f"{count}.flatimage")
        (scratch / "image").unlink()
        times.append((count, _first_start(session, image)))
        memory.append((count, resident(session.daemon()) * 1024))
    yield _curve("first start by layers", times, "ms")
    yield _curve("memory of the daemon by layers", memory, "KiB")


def _instances(session: Session, scratch: Path) -> Iterator[Row]:
    layer = _small_layer(scratch / "one")
    image = session.adopt(make_image([layer], scratch / "one" / "image"), "one.flatimage")
    start = partial(session.output, str(image), "fim-exec", "true")
    times, memory = Points(), Points()
    running: list[Popen[bytes]] = []
    for count in _INSTANCES:
        while len(running) < count:
            running.append(session.background(image, "sleep 3600"))
        times.append((count, statistics.median(seconds(start) for _ in range(3 * _RUNS)) * 1e3))
        memory.append((count, resident(session.daemon()) * 1024))
    for process in running:
        process.kill()
        process.wait()
    wait_for(lambda: session.objects("ps") == [], seconds=60)
    yield _curve("one more start by instances", times, "ms")
    yield _curve("memory of the daemon by instances", memory, "KiB")


def _small_layer(directory: Path) -> Path:
    return make_layers(make_trees(directory, 1), directory)[0]


def _files(session: Session, scratch: Path) -> Iterator[Row]:
    root = make_rootfs(scratch / "files", Path("/bin/busybox"))
    times, memory, worker = Points(), Points(), Points()
    made = 0
    for count in _FILES:
        for number in range(made, count):
            directory = root / "data" / f"{number // 1000}"
            if number % 1000 == 0:
                directory.mkdir(parents=True)
            (directory / f"{number}").touch()
        made = count
        layer = scratch / "files.layer"
        create(root, layer, level=1)
        image = session.adopt(make_image([layer], scratch / "image"), f"files{count}.flatimage")
        (scratch / "image").unlink()
        times.append((count, _first_start(session, image)))
        program = session.background(image, "sleep 3600")
        memory.append((count, resident(session.daemon()) * 1024))
        worker.append((count, _of_workers(session)))
        program.kill()
        program.wait()
    yield _curve("first start by files in a layer", times, "ms")
    yield _flat("memory of the daemon by files in a layer", memory, "KiB")
    yield _curve("memory of the layer's process by files", worker, "KiB")


def _of_workers(session: Session) -> float:
    return sum(map(resident, session.named("layer-"))) * 1024


def _size(session: Session, scratch: Path) -> Iterator[Row]:
    small = _small_layer(scratch / "size")
    times, memory = Points(), Points()
    for gigabytes in _GIGABYTES:
        image = session.directory / "work" / f"{gigabytes}GiB.flatimage"
        make_image([small], image)
        append_sparse_layer(image, small, gigabytes << 30)
        os.chown(image, session.account.uid, session.account.gid)
        times.append((gigabytes, _first_start(session, image)))
        memory.append((gigabytes, resident(session.daemon()) * 1024))
        image.unlink()
    yield _curve("first start by GiB of the image", times, "ms")
    yield _flat("memory of the daemon by GiB of the image", memory, "KiB")


def append_sparse_layer(image: Path, small: Path, size: int) -> None:
    """Append to an image a layer that has, besides all of a small one, blocks that are holes.

    No file is in them, so nobody asks for their checksums, which are left wrong.
    """
    with contextlib.closing(Source.open(small, 0, None)) as source:
        sections = [
            (SectionType(section.type), *load(source, table, section))
            for table in [read_table(source)]
            for section in table.sections
            if section.type != SectionType.SECTION_INDEX
        ]
    blocks = [item for item in sections if item[0] == SectionType.BLOCK]
    others = [item for item in sections if item[0] != SectionType.BLOCK]
    with image.open("r+b") as out:
        start = out.seek(0, os.SEEK_END) + LENGTH.size
        out.seek(start)
        index: list[int] = []

        def add(kind: SectionType, compression: int, payload: bytes | memoryview) -> None:
            index.append(kind << 48 | out.tell() - start)
            out.write(pack_section(len(index) - 1, kind, compression, payload))
            out.write(payload)

        for kind, header, payload in blocks:
            add(kind, header.compression, payload)
        for _ in range(size // _HOLE):
            add(SectionType.BLOCK, Compression.NONE, b"")
            out.seek(-8, os.SEEK_CUR)
            out.write(_HOLE.to_bytes(8, "little"))
            out.seek(_HOLE, os.SEEK_CUR)
        for kind, header, payload in others:
            add(kind, header.compression, payload)
        words = [*index, SectionType.SECTION_INDEX << 48 | out.tell() - start]
        packed = struct.pack(f"<{len(words)}Q", *words)
        add(SectionType.SECTION_INDEX, Compression.NONE, packed)
        end = out.tell()
        out.seek(start - LENGTH.size)
        out.write(LENGTH.pack(end - start))


def _text(points: Points, unit: str) -> str:
    return ", ".join(f"{x:g}: {y:.4g}" for x, y in points) + f" {unit}"


def _curve(what: str, points: Points, unit: str) -> Row:
    """Make a row of a curve, which is to be linear at most and without a step."""
    (first, base), (last, top) = points[0], points[-1]
    noise = base * _NOISE
    rising = [(x, y - base) for x, y in points[1:] if y - base > noise]
    power = exponent(rising) if len(rising) > 1 else 0.0
    slope = max(top - base, 0.0) / (last - first)
    has_step = any(
        after - before > _STEP * slope * (x - w) + noise
        for (w, before), (x, after) in pairwise(points)
    )
    text = f"{_text(points, unit)}; exponent {power:.2f}{', a step' if has_step else ''}"
    return Row(
        what, text, reach="linear or better, no step", reached=power <= _LINEAR and not has_step
    )


def _flat(what: str, points: Points, unit: str) -> Row:
    """Make a row of what is not to grow."""
    grown = points[-1][1] / points[0][1]
    return Row(what, _text(points, unit), ratio=grown, reach=f"≤ {_FLAT:g}", reached=grown <= _FLAT)
