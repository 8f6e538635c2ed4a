"""A commit of 10 000 files and 500 MB, beside `tar | zstd` of the same level and threads.

A commit does more: it finds what is there twice, syncs the layer, compares it with the files byte
by byte, and removes them.
"""

import os
import random
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, Self

from fimd.dwarfs.write.levels import LEVELS
from tests.bench.rows import Row, compared
from tests.bench.timing import Rounds, seconds
from tests.bench.world import make_image, make_layers, make_trees, new_session, resident
from tests.support.session import Session

_FILES: Final = 10_000
_BYTES: Final = 500 * 10**6
_LEVEL: Final = 4  # zstd's 11 in blocks of 4 MiB
_ROUNDS: Final = 3
_MOST_MEMORY: Final = 512.0
"""MiB of the process that commits."""


def make_changes(root: Path, files: int = _FILES, size: int = _BYTES) -> None:
    """Write so many files of so many bytes together, of what this machine's programs are made of.

    Their sizes are spread as in a root filesystem: many are small, and some hold most of it.
    """
    source = random.Random(1)
    weights = [source.paretovariate(0.8) for _ in range(files)]
    unit = size / sum(weights)
    pieces = _pieces()
    for number, weight in enumerate(weights):
        directory = root / f"directory{number // 100}"
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"file{number}").open("wb") as file:
            left = int(weight * unit)
            while left > 0:
                piece = next(pieces)[:left]
                file.write(piece)
                left -= len(piece)


def _pieces() -> Iterator[bytes]:
    """Yield parts of programs, turned so that no part comes twice."""
    paths = [path for path in sorted(Path("/usr/lib").rglob("*.so*")) if path.is_file()]
    turn = 0
    while True:
        turned = bytes((value + 37 * turn) & 255 for value in range(256))
        turn += 1
        for path in paths:
            content = path.read_bytes().translate(turned)
            for start in range(0, len(content), 64 << 10):
                yield content[start : start + (64 << 10)]


def measure() -> Iterator[Row]:
    """Commit and pack in turn."""
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as name, new_session() as session:
        scratch = Path(name)
        scratch.chmod(0o755)
        make_changes(scratch / "changes")
        _give(session, scratch / "changes")
        layers = make_layers(make_trees(scratch, 1), scratch)
        image = session.adopt(make_image(layers, scratch / "image"), "app.flatimage")
        session.output(str(image), "fim-exec", "true")  # makes the data directory
        codec = LEVELS[_LEVEL].data
        threads = os.cpu_count()
        theirs = f"tar | zstd -{codec.level} -T{threads}"
        zstd = f"zstd -q -f -{codec.level} -T{threads} -o packed"
        command = f"tar -C changes -c . | {zstd} && sync packed"
        rounds, sizes, peak = Rounds(), Rounds(), Rounds()
        for number in range(_ROUNDS):
            layer = session.directory / "work" / f"{number}.layer"
            root = session.directory / "work" / ".app.flatimage.data" / "root"
            shutil.copytree(scratch / "changes", root, dirs_exist_ok=True)
            _give(session, root)
            os.sync()
            with _Peak(session) as memory:
                took = partial(
                    session.output,
                    str(image),
                    "fim-layer",
                    "commit",
                    "file",
                    str(layer),
                    variables={"FIM_COMPRESSION_LEVEL": str(_LEVEL)},
                    seconds=600,
                )
                rounds.note("commit", seconds(took))
            peak.note("commit", memory.most)
            sizes.note("commit", layer.stat().st_size)
            pack = partial(subprocess.run, ["sh", "-c", command], cwd=scratch, check=True)
            rounds.note(theirs, seconds(pack))
            sizes.note(theirs, (scratch / "packed").stat().st_size)
        what = f"commit of {_FILES} files, {_BYTES // 10**6} MB"
        yield compared(
            f"{what}, level {_LEVEL}", rounds, "commit", theirs, unit="s", scale=1, most=1.3
        )
        yield compared("size of the layer", sizes, "commit", theirs, unit="MB", scale=1e-6)
        most = peak.median("commit")
        yield Row(
            "memory of the process that commits (PSS)",
            f"{most:.0f} MiB",
            reach=f"≤ {_MOST_MEMORY:.0f} MiB",
            reached=most <= _MOST_MEMORY,
        )


def _give(session: Session, root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.chown(path, session.account.uid, session.account.gid)


class _Peak(threading.Thread):
    """Watches how much memory a job's process takes."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.most = 0.0
        self._session = session
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Look ten times a second."""
        while not self._over.wait(0.1):
            for pid, words in self._session.processes().items():
                if "fimd.jobs.worker" in words:
                    self.most = max(self.most, resident(pid))
