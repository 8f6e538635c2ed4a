"""Trees from nothing, to be packed, and images read back through the reader."""

import stat
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fimd.dwarfs import Image
from fimd.dwarfs.verify import verify
from fimd.dwarfs.write import Entry, Piece, Settings, Summary, create_from

Facts = tuple[object, ...]


@dataclass
class Made:
    """Entries that never were files, with their content."""

    entries: list[Entry] = field(default_factory=lambda: [Entry(b"", stat.S_IFDIR | 0o755)])

    def directory(
        self, path: bytes, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime_ns: int = 0
    ) -> None:
        self.entries.append(Entry(path, stat.S_IFDIR | mode, uid, gid, mtime_ns))

    def file(
        self,
        path: bytes,
        *content: Piece,
        mode: int = 0o644,
        identity: object = None,
        mtime_ns: int = 0,
        uid: int = 0,
        gid: int = 0,
    ) -> None:
        size = sum(piece if isinstance(piece, int) else len(piece) for piece in content)
        holes = sum(piece for piece in content if isinstance(piece, int))
        self.entries.append(
            Entry(
                path,
                stat.S_IFREG | mode,
                uid,
                gid,
                mtime_ns,
                size=size,
                identity=identity,
                hole_bytes=holes,
                source=content,
            )
        )

    def again(self, path: bytes, old: Entry) -> None:
        """Another name of a file."""
        self.entries.append(replace(old, path=path))

    def link(self, path: bytes, target: bytes) -> None:
        self.entries.append(Entry(path, stat.S_IFLNK | 0o777, target=target))

    def other(self, path: bytes, mode: int, rdev: int = 0) -> None:
        self.entries.append(Entry(path, mode, rdev=rdev))

    def read(self, entry: Entry) -> Generator[Piece]:
        yield from entry.source

    def expected(self) -> dict[bytes, Facts]:
        """What the reader has to find."""
        names: dict[object, int] = {}
        for entry in self.entries:
            names[entry.identity] = names.get(entry.identity, 0) + 1
        return {
            entry.path: (
                entry.mode,
                entry.uid,
                entry.gid,
                entry.mtime_ns // 10**9 * 10**9,
                names[entry.identity] if entry.identity is not None else 1,
                entry.rdev,
                entry.target,
                content(entry) if entry.is_file else b"",
            )
            for entry in self.entries
        }

    def create(self, path: Path, **settings: object) -> Summary:
        with path.open("wb", buffering=0) as file:
            return create_from(
                self.entries,
                self.read,
                file.fileno(),
                Settings(**settings),  # type: ignore[arg-type]
                name=str(path),
            )


def content(entry: Entry) -> bytes:
    return b"".join(bytes(piece) for piece in entry.source)


def found(path: Path) -> dict[bytes, Facts]:
    """What the reader finds in a sound image."""
    with Image.open(path) as image:
        assert verify(image, content=True) == []
        return {
            name: (
                facts.mode,
                facts.uid,
                facts.gid,
                facts.mtime_ns,
                facts.nlink,
                facts.rdev,
                image.readlink(facts.inode) if stat.S_ISLNK(facts.mode) else b"",
                bytes(image.read(facts.inode, 0, facts.size)) if stat.S_ISREG(facts.mode) else b"",
            )
            for name, facts in image.walk()
        }
