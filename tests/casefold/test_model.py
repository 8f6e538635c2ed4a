"""The view behaves as a tree of dictionaries whose keys are folded names."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from fimd.casefold.folding import fold, lower
from tests.support.machine import live

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.casefold.conftest import Serving, Union

NAMES = ["a", "b", "Ab", "readme.txt", "σας", "Ünï"]
SPELLINGS = st.randoms(use_true_random=False)


@dataclass(eq=False)
class File:
    content: bytes = b""


@dataclass(eq=False)
class Folder:
    entries: dict[bytes, tuple[bytes, File | Folder]] = field(default_factory=dict)


@dataclass
class Handle:
    descriptor: int
    file: File


def folded(name: str) -> bytes:
    return fold(name.encode())


class ViewMachine(RuleBasedStateMachine):
    root: ClassVar[Path]
    has_hard_links: ClassVar[bool]
    counter = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.base = self.root / f"run{next(self.counter)}"
        self.base.mkdir()
        self.tree = Folder()
        self.handles: list[Handle] = []

    def teardown(self) -> None:
        for handle in self.handles:
            os.close(handle.descriptor)

    # where

    def folders(self) -> list[tuple[tuple[str, ...], Folder]]:
        found: list[tuple[tuple[str, ...], Folder]] = [((), self.tree)]
        for path, folder in found:
            for stored, node in folder.entries.values():
                if isinstance(node, Folder):
                    found.append(((*path, stored.decode()), node))
        return found

    def spell(self, name: str, data: st.DataObject) -> str:
        letters = []
        for letter in name:
            variants = [
                c
                for c in dict.fromkeys((letter, letter.upper(), letter.lower()))
                if folded(c) == folded(letter)
            ]
            letters.append(data.draw(st.sampled_from(variants)))
        return "".join(letters)

    def place(self, data: st.DataObject) -> tuple[Path, Folder, str]:
        """A path in some spelling, the folder that it is in, and its last name."""
        path, folder = data.draw(st.sampled_from(self.folders()[:12]))
        name = self.spell(data.draw(st.sampled_from(NAMES)), data)
        return self.base.joinpath(*(self.spell(part, data) for part in path), name), folder, name

    def expect(self, error: int | None, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as raised:
            if raised.errno != error:
                raise
        else:
            assert error is None

    # what

    @rule(data=st.data(), content=st.binary(max_size=20))
    def write(self, data: st.DataObject, content: bytes) -> None:
        path, folder, name = self.place(data)
        _, node = folder.entries.get(folded(name), (b"", None))
        self.expect(
            errno.EISDIR if isinstance(node, Folder) else None, lambda: path.write_bytes(content)
        )
        if node is None:
            folder.entries[folded(name)] = (lower(name.encode()), File(content))
        elif isinstance(node, File):
            node.content = content

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        path, folder, name = self.place(data)
        _, node = folder.entries.get(folded(name), (b"", None))
        if isinstance(node, File):
            assert path.read_bytes() == node.content
            assert path.stat().st_size == len(node.content)
        else:
            self.expect(errno.ENOENT if node is None else errno.EISDIR, path.read_bytes)

    @rule(data=st.data())
    def make_folder(self, data: st.DataObject) -> None:
        path, folder, name = self.place(data)
        taken = folded(name) in folder.entries
        self.expect(errno.EEXIST if taken else None, path.mkdir)
        if not taken:
            folder.entries[folded(name)] = (lower(name.encode()), Folder())

    @rule(data=st.data())
    def remove_file(self, data: st.DataObject) -> None:
        path, folder, name = self.place(data)
        _, node = folder.entries.get(folded(name), (b"", None))
        error = errno.ENOENT if node is None else errno.EISDIR if isinstance(node, Folder) else None
        self.expect(error, path.unlink)
        if error is None:
            del folder.entries[folded(name)]
        self.check(path, exists=isinstance(node, Folder))

    @rule(data=st.data())
    def remove_folder(self, data: st.DataObject) -> None:
        path, folder, name = self.place(data)
        _, node = folder.entries.get(folded(name), (b"", None))
        error = errno.ENOENT if node is None else errno.ENOTDIR if isinstance(node, File) else None
        if isinstance(node, Folder) and node.entries:
            error = errno.ENOTEMPTY
        self.expect(error, path.rmdir)
        if error is None:
            del folder.entries[folded(name)]

    @precondition(lambda self: self.has_hard_links)
    @rule(data=st.data())
    def link(self, data: st.DataObject) -> None:
        path, folder, name = self.place(data)
        _, node = folder.entries.get(folded(name), (b"", None))
        new_path, new_folder, new_name = self.place(data)
        if not isinstance(node, File):
            return
        taken = folded(new_name) in new_folder.entries
        self.expect(errno.EEXIST if taken else None, lambda: os.link(path, new_path))
        if not taken:
            new_folder.entries[folded(new_name)] = (lower(new_name.encode()), node)

    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        path, folder, name = self.place(data)
        new_path, new_folder, new_name = self.place(data)
        _, node = folder.entries.get(folded(name), (b"", None))
        _, target = new_folder.entries.get(folded(new_name), (b"", None))
        error = self.rename_error(node, folder, new_folder, target)
        self.expect(error, lambda: os.rename(path, new_path))
        if error is None and node is not None and node is not target:
            del folder.entries[folded(name)]
            new_folder.entries[folded(new_name)] = (lower(new_name.encode()), node)
        self.check(path, exists=folded(name) in folder.entries)
        self.check(new_path, exists=folded(new_name) in new_folder.entries)

    def rename_error(
        self,
        node: File | Folder | None,
        folder: Folder,
        new_folder: Folder,
        target: File | Folder | None,
    ) -> int | None:
        if node is None:
            return errno.ENOENT
        if isinstance(node, Folder) and self.is_within(new_folder, node):
            return errno.EINVAL
        if isinstance(target, Folder) and self.is_within(folder, target):
            return errno.ENOTEMPTY
        if node is target or target is None:
            return None
        if isinstance(node, Folder) and isinstance(target, File):
            return errno.ENOTDIR
        if isinstance(node, File) and isinstance(target, Folder):
            return errno.EISDIR
        return errno.ENOTEMPTY if isinstance(target, Folder) and target.entries else None

    def is_within(self, folder: Folder, above: Folder) -> bool:
        return folder is above or any(
            isinstance(node, Folder) and self.is_within(folder, node)
            for _, node in above.entries.values()
        )

    @precondition(lambda self: len(self.handles) < 4)
    @rule(data=st.data(), flags=st.sampled_from([os.O_RDONLY, os.O_RDWR]))
    def open(self, data: st.DataObject, flags: int) -> None:
        path, folder, name = self.place(data)
        _, node = folder.entries.get(folded(name), (b"", None))
        if isinstance(node, File):
            self.handles.append(Handle(os.open(path, flags), node))

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), content=st.binary(max_size=20))
    def use_open_file(self, data: st.DataObject, content: bytes) -> None:
        handle = data.draw(st.sampled_from(self.handles))
        try:
            os.pwrite(handle.descriptor, content, 0)
        except OSError as error:
            if error.errno != errno.EBADF:  # opened for reading
                raise
        else:
            handle.file.content = content + handle.file.content[len(content) :]
        assert os.pread(handle.descriptor, 100, 0) == handle.file.content
        assert os.fstat(handle.descriptor).st_size == len(handle.file.content)

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(self.handles))
        self.handles.remove(handle)
        os.close(handle.descriptor)

    # and what is seen then

    def check(self, path: Path, *, exists: bool) -> None:
        deadline = time.monotonic() + 1.0
        for spelling in (path.name, path.name.lower(), path.name.upper()):
            if folded(spelling) != folded(path.name):
                continue
            while path.with_name(spelling).exists() is not exists:  # at once, if it is not open
                assert self.handles, (path, exists)
                assert time.monotonic() < deadline, (path, exists)

    @invariant()
    def listings_are_the_models(self) -> None:
        for path, folder in self.folders()[:4]:
            stored = sorted(stored.decode() for stored, _ in folder.entries.values())
            assert sorted(self.listed(self.base.joinpath(*path))) == stored

    def listed(self, path: Path) -> list[str]:
        """What a program sees; libfuse's unions keep removed open files under such names."""
        return [name for name in os.listdir(path) if not name.startswith(".fuse_hidden")]


@pytest.fixture(params=["directory", "unionfs", "overlayfs"])
def source_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_random_operations_in_random_spellings_agree_with_the_model(
    source_kind: str, serving: Serving, union: Union
) -> None:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = directory / "source"
        source.mkdir()
        (directory / "view").mkdir()
        if source_kind != "directory":
            source = stack.enter_context(union(source_kind, directory / "union"))
        view = stack.enter_context(serving(source, directory / "view", log=directory / "log"))
        # unionfs-fuse shows hard links as different files
        known = {"root": view.root, "has_hard_links": source_kind != "unionfs"}
        machine = type("Machine", (ViewMachine,), known)
        live(machine, 15, 40)
