"""Making a standalone layer of a directory, or of some of its files."""

import os
import time
from contextlib import suppress

from fimd.base.errors import FimError, InvalidArgumentError
from fimd.commits import mkdwarfs
from fimd.commits.work import Work
from fimd.dwarfs.reader import Image
from fimd.dwarfs.verify import verify
from fimd.dwarfs.write import create
from fimd.dwarfs.write.entries import printable
from fimd.trees.attributes import lost_below

_LONGEST_LIST = 256 << 20


def create_layer(
    directory: str,
    output: str,
    level: int,
    work: Work,
    file_list: str | None = None,
    program: str | None = None,
) -> int:
    """Pack a directory into a layer file, in place of the one that is there; return its size.

    `file_list` names a file with one path a line, relative to the directory (NUL-separated where
    it holds a NUL): only they are packed. `program` is mkdwarfs, None for the embedded writer.
    Raises PackError and FimError.
    """
    if not os.path.exists(directory):
        raise InvalidArgumentError(f"Source directory '{directory}' does not exist")
    if not os.path.isdir(directory):
        raise InvalidArgumentError(f"Source '{directory}' is not a directory")
    for sentence in lost_below(directory, _read_list(file_list) if file_list else None):
        work.note(sentence)
    part = f"{output}.{os.getpid()}.part"
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            if program is None or _lies_in(output, directory):
                _pack(directory, output, descriptor, level, file_list, work)
            else:
                mkdwarfs.pack(program, directory, part, level, file_list, work)
            size = _check(part, work)
            os.replace(part, output)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FimError(f"{output} can't be written: {error.strerror}") from error
    return size


def _pack(
    directory: str, output: str, part: int, level: int, file_list: str | None, work: Work
) -> None:
    """Pack by the embedded writer all but the layer itself."""
    outputs = {_identity(os.fstat(part))}
    with suppress(FileNotFoundError):
        outputs.add(_identity(os.stat(output)))
    create(
        directory,
        part,
        level=level,
        entries=None if file_list is None else _read_list(file_list),
        keep=lambda entry: entry.source.state[:2] not in outputs,
        subsecond=True,
        created=int(time.time()),
        progress=work.packing,
        cancelled=work.cancelled,
        on_skip=lambda path, why: work.note(f"left out {printable(path)}: {why}"),
    )


def _check(part: str, work: Work) -> int:
    """Sync what was packed, verify it, and return its size."""
    with open(part, "rb") as file, Image.open(file.fileno()) as layer:
        os.fsync(file.fileno())
        for fault in verify(layer, progress=work.phase("verify"), cancelled=work.cancelled):
            raise fault
        return layer.size


def _lies_in(output: str, directory: str) -> bool:
    """Whether mkdwarfs would find its own output among what it packs."""
    top = os.path.realpath(directory)
    return os.path.commonpath([top, os.path.realpath(os.path.dirname(output))]) == top


def _identity(facts: os.stat_result) -> tuple[int, int]:
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
