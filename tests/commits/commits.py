"""What tests of commits start from, ask for, and look at."""

import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path

from fimd.commits.commit import Committed, commit
from fimd.commits.opened import OpenData
from fimd.commits.request import CommitRequest, held_commit
from fimd.commits.work import Work
from fimd.layers.place import LayerPlace
from fimd.stacks.data import DataDirectory
from tests.support.layers import chain, shown

CONTENT = {"a": b"1" * 5000, "dir/b": b"two", "dir/deep/c": os.urandom(300_000)}
"""What is changed: files by their names."""


def fill(data: Path) -> None:
    """Put changes into the upper."""
    for name, content in CONTENT.items():
        path = data / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def opened(data: Path) -> AbstractContextManager[OpenData]:
    """Hold a data directory open."""
    return DataDirectory.open(str(data)).opened()


def request(image: Path, mode: str, path: str = "") -> CommitRequest:
    """Ask for a commit with the image's layers below."""
    return CommitRequest(str(image), mode, path, 1, tuple(chain(image)))


def run(data: Path, asked: CommitRequest, work: Work | None = None) -> Committed | None:
    """Commit, and return the new layer."""
    made: list[Committed | None] = []
    with opened(data) as directory, held_commit(asked, directory) as held:
        commit(held, work or Work(), made.append)
    return made[0]


def content_of(places: list[LayerPlace]) -> dict[str, bytes]:
    """The files that layers show together."""
    return {
        os.fsdecode(path): content
        for path, (mode, content) in shown(places).items()
        if stat.S_ISREG(mode)
    }


def seen(data: Path, image: Path, extra: Path | None = None) -> dict[str, bytes]:
    """The files that an instance would see: chain, managed layers, a file's layer, upper."""
    places = chain(image)
    files = sorted((data / "layers").iterdir()) + ([extra] if extra and extra.exists() else [])
    places += [LayerPlace(str(file), 0, file.stat().st_size) for file in files]
    found = content_of(places)
    root = data / "root"
    for path in root.rglob("*"):
        if path.is_file():
            found[str(path.relative_to(root))] = path.read_bytes()
    return found
