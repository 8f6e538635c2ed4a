"""Making a standalone layer of a directory, or of some of its files."""

import os
import time

from fimd.dwarfs.reader import Image
from fimd.dwarfs.verify import verify
from fimd.dwarfs.write import Entry, create
from fimd.dwarfs.write.entries import printable
from fimd.errors import FimError, InvalidArgumentError
from fimd.layers.work import Work

_LONGEST_LIST = 256 << 20


def create_layer(
    directory: str, output: str, level: int, work: Work, file_list: str | None = None
) -> int:
    """Pack a directory into a layer file, in place of the one that is there; return its size.

    `file_list` names a file with one path a line, relative to the directory (NUL-separated where
    it holds a NUL): only they are packed. Raises PackError and FimError.
    """
    if not os.path.exists(directory):
        raise InvalidArgumentError(f"Source directory '{directory}' does not exist")
    if not os.path.isdir(directory):
        raise InvalidArgumentError(f"Source '{directory}' is not a directory")

    def skip(path: bytes, why: str) -> None:
        work.note(f"left out {printable(path)}: {why}")

    def check(part: int) -> None:
        with Image.open(part) as layer:
            for fault in verify(layer, progress=work.phase("verify"), cancelled=work.cancelled):
                raise fault

    entries = None if file_list is None else _read_list(file_list)
    part = f"{output}.{os.getpid()}.part"
    descriptor = -1
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        outputs = {_identity(name) for name in (part, output) if os.path.exists(name)}

        def keep(entry: Entry) -> bool:
            return entry.source.state[:2] not in outputs

        create(
            directory,
            descriptor,
            level=level,
            entries=entries,
            keep=keep,
            subsecond=True,
            created=int(time.time()),
            progress=work.packing,
            cancelled=work.cancelled,
            on_skip=skip,
        )
        os.fsync(descriptor)
        check(descriptor)
        os.replace(part, output)
        return os.fstat(descriptor).st_size
    except OSError as error:
        raise FimError(f"{output} can't be written: {error.strerror}") from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        if os.path.lexists(part):
            os.unlink(part)


def _identity(path: str) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino


def _read_list(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            text = file.read(_LONGEST_LIST + 1)
    except OSError as error:
        raise InvalidArgumentError(f"the file list {path}: {error.strerror}") from error
    if len(text) > _LONGEST_LIST:
        raise InvalidArgumentError(f"the file list {path} has more than {_LONGEST_LIST} bytes")
    return [name for name in text.split(b"\0" if b"\0" in text else b"\n") if name]
