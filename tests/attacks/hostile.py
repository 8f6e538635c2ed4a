"""Hostile data directories: what a program leaves in one, and exchanges while it is looked at."""

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fimd.base.system_calls import RENAME_EXCHANGE, rename
from fimd.dwarfs.write import create
from fimd.flatimage.create import create_image
from tests.support.children import beside

SECRET = b"what no layer and no message may ever hold: " + bytes(range(65, 91)) * 40
PARTS = ("root", "tmp", "work", "layers")
ASIDE = "fimd-upper-0123456789abcdef"
LOST = "lost-0123456789abcdef"
PART = "fimd-part-0123456789abcdef"
RECORD = "fimd-squash-0123456789abcdef"
WORK = "0123456789abcdef"
MARKS = (".unionfs", ".unionfs-fuse")
DIRECTORIES = ("a", "a/b", "a/b/c", "dir", *MARKS, f"{MARKS[0]}/a", f"{MARKS[1]}/a")
NAMES = ("f", ".wh.f", ".wh..wh..opq", "f_HIDDEN~", "d_HIDDEN~", "gone", ".wh..opq")

_LONG_AGO = 1_000_000_000 * 10**9


def make_image(scratch: Path) -> Path:
    """An image with the names in its base layer that hostile uppers delete and replace."""
    base = scratch / "base"
    for directory in ("a/b/c", "dir", "d"):
        (base / directory).mkdir(parents=True)
        (base / directory / "f").write_text("below")
        (base / directory / "gone").write_text("below")
    create(base, scratch / "base.layer", level=1)
    create_image(scratch / "app.flatimage", [scratch / "base.layer"])
    return scratch / "app.flatimage"


def make_canary(path: Path) -> None:
    """A directory outside that has all the names which somebody led astray would touch."""
    for directory in ("", *DIRECTORIES, *PARTS, ASIDE, f"{ASIDE}/a", LOST, WORK, "fim/config"):
        (path / directory).mkdir(parents=True, exist_ok=True)
        for name in (*NAMES, ".overlay", "layer-000.layer", "environment.json", f".{PART}"):
            (path / directory / name).write_bytes(SECRET)
    for place in [*path.rglob("*"), path]:
        os.utime(place, ns=(_LONG_AGO, _LONG_AGO + 1))


def look_at(canary: Path) -> dict[str, tuple[object, ...]]:
    """What the canary is, without reading it: also when it was last read, by its access times."""
    found: dict[str, tuple[object, ...]] = {}
    for place in [canary, *_below(canary)]:
        facts = place.lstat()
        kind = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_size, facts.st_nlink)
        found[str(place)] = (*kind, facts.st_atime_ns, facts.st_mtime_ns, facts.st_ctime_ns)
    return found


def _below(canary: Path) -> Iterator[Path]:
    """Every place in a canary, by the names that it was made with: listing one would read it."""
    for directory in ("", *DIRECTORIES, *PARTS, ASIDE, f"{ASIDE}/a", LOST, WORK, "fim/config"):
        if directory:
            yield canary / directory
        for name in (*NAMES, ".overlay", "layer-000.layer", "environment.json", f".{PART}"):
            yield canary / directory / name


@dataclass(frozen=True)
class Hostile:
    """A data directory that a program has had its way with, below `scratch`.

    `kinds` says what is at each path of the upper, `parts` which of the directory's own parts are
    links, and `seed` what else is exchanged while somebody looks.
    """

    kinds: dict[str, str]
    parts: tuple[str, ...]
    seed: int

    def make(self, scratch: Path) -> tuple[Path, Path]:
        """Make it, and the canary that its links lead to; return both."""
        canary, data = scratch / "canary", scratch / "data"
        make_canary(canary)
        for part in (*PARTS, "casefold"):
            (data / part).mkdir(parents=True)
        for path, kind in self.kinds.items():
            place = data / "root" / path
            if place.parent.resolve() == place.parent:  # else it would be put into the canary
                with suppress(OSError):  # it can't be there beside the others
                    _put(place, kind, canary)
        self._fill_parts(data, canary)
        for part in self.parts:
            shutil.rmtree(data / part)
            (data / part).symlink_to(canary / part)
        return data, canary

    def _fill_parts(self, data: Path, canary: Path) -> None:
        chance = random.Random(self.seed)
        aside = data / "tmp" / ASIDE
        (aside / "a").mkdir(parents=True)
        (aside / "a" / "link").symlink_to(canary)
        for path in (data / "tmp" / PART, data / "tmp" / "fimd-squashed-0", data / "work" / WORK):
            path.symlink_to(chance.choice([str(canary), f"{canary}/.{PART}", "../../canary"]))
        record = '{"inode": 1, "into": "../../canary/f", "remove": ["../../canary/gone"]}'
        (data / "tmp" / RECORD).write_text(record)
        if chance.random() < 0.3:
            (data / "work" / ".overlay").symlink_to(canary / ".overlay")

    @contextmanager
    def exchanging(self, scratch: Path) -> Iterator[None]:
        """Have directories and parts trade places with links to the canary, again and again."""
        data, spare = scratch / "data", scratch / "spare"
        spare.mkdir()
        chance = random.Random(self.seed)
        places = [data / "root" / path for path, kind in self.kinds.items() if kind == "directory"]
        places += [data / "tmp" / ASIDE / "a", data / "tmp" / ASIDE]
        if chance.random() < 0.5:
            places += [data / part for part in PARTS]
        with ExitStack() as stack:
            links = _opened(spare, stack)
            pairs = []
            for number, place in enumerate(places):
                if place.parent.is_dir() and place.parent.resolve() == place.parent:
                    link = os.fsencode(str(number))
                    name = place.relative_to(data).name
                    os.symlink(scratch / "canary" / name, link, dir_fd=links)
                    pairs.append((os.fsencode(place.name), _opened(place.parent, stack), link))

            def exchange() -> None:
                chance.shuffle(pairs)
                for name, directory, link in pairs:
                    with suppress(OSError):
                        rename(name, link, directory, links, RENAME_EXCHANGE)

            with beside(exchange):
                yield


def _opened(path: Path, stack: ExitStack) -> int:
    """Hold a directory, wherever it is moved: the attacker is not to be led astray itself."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY)
    stack.callback(os.close, descriptor)
    return descriptor


def _put(place: Path, kind: str, canary: Path) -> None:
    """Put one entry of a kind at a place."""
    make: dict[str, Callable[[], object]] = {
        "directory": lambda: place.mkdir(parents=True),
        "file": lambda: place.write_text("changed"),
        "empty": place.touch,
        "deleted": lambda: os.mknod(place, stat.S_IFCHR, 0),
        "fifo": lambda: os.mkfifo(place),
        "link": lambda: place.symlink_to(canary),
        "link to the same": lambda: place.symlink_to(canary / place.name),
        "relative link": lambda: place.symlink_to("../" * 8 + str(canary)),
        "link to a file": lambda: place.symlink_to(canary / "f"),
        "closed": lambda: place.mkdir(mode=0),
    }
    make[kind]()
