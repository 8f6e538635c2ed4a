"""Commits: whatever happens on the way, the changes are in the upper or in a complete layer."""

import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import fimd.commits.aside
import fimd.commits.newfile
from fimd.base.errors import FimError
from fimd.commits.lock import exclusive
from fimd.commits.newfile import NewFile, remove_parts
from fimd.commits.opened import OpenData
from fimd.commits.recovery import recover
from fimd.commits.request import opened_target
from fimd.commits.work import Work
from fimd.dwarfs.errors import CancelledError
from fimd.dwarfs.write import PackError
from fimd.flatimage.errors import ImageError
from tests.commits.commits import CONTENT, fill, opened, request, run, seen
from tests.support.children import in_child
from tests.support.layers import chain, killed_at


def test_what_changes_during_a_commit_is_named_and_nothing_is_committed(
    data: Path, image: Path
) -> None:
    fill(data)

    def write(phase: str, _done: int, _total: int) -> None:
        if phase == "verify":
            (data / "root" / "dir" / "b").write_bytes(b"other")

    with pytest.raises(PackError, match="dir/b"):
        run(data, request(image, "layer"), Work(progress=write))
    assert list((data / "layers").iterdir()) == []
    assert (data / "root" / "dir" / "b").read_bytes() == b"other"


def test_a_commit_can_be_cancelled_in_every_phase(data: Path, image: Path) -> None:
    fill(data)
    before = image.read_bytes()
    for phase in ("survey", "pack", "verify", "append"):
        now: list[str] = []
        work = Work(
            progress=lambda name, _done, _total, now=now: now.append(name),  # type: ignore[misc]
            cancelled=lambda now=now, phase=phase: phase in now,  # type: ignore[misc]
        )
        with pytest.raises((CancelledError, ImageError)):
            run(data, request(image, "binary"), work)
        assert image.read_bytes() == before
        assert (data / "root" / "a").exists()
        assert list((data / "tmp").iterdir()) == []


def test_a_file_without_a_name_falls_back_to_a_hidden_one_that_recovery_finds(
    data: Path, tmp_path: Path
) -> None:
    with opened(data) as directory, opened_target(str(tmp_path)) as target:
        with NewFile(target, str(tmp_path), directory.tmp, named=True) as file:
            os.write(file.fd, b"content")
            file.publish("done")
        assert (tmp_path / "done").read_bytes() == b"content"
        assert list((data / "tmp").iterdir()) == []
        make = partial(NewFile, directory.layers, "layers", directory.tmp, named=True)
        assert in_child(make) == 0
        assert list((data / "layers").iterdir()) == []
        assert remove_parts(directory.tmp) == (1, [])
    assert list((data / "tmp").iterdir()) == []


def test_a_hidden_file_elsewhere_is_told_and_not_removed_by_a_records_word(
    data: Path, tmp_path: Path
) -> None:
    part = tmp_path / ".fimd-part-0123456789abcdef"
    part.write_text("kept")
    (data / "tmp" / "fimd-part-0123456789abcdef").write_text(str(part))
    (data / "tmp" / "fimd-part-fedcba9876543210").write_text("/etc/passwd")
    (data / "tmp" / "fimd-part-fedcba9876543211").symlink_to(part)
    with opened(data) as directory:
        messages = recover(directory)
    assert [str(part) in message for message in messages] == [True]
    assert part.read_text() == "kept"
    assert list((data / "tmp").iterdir()) == []


def test_an_upper_that_cannot_be_moved_is_emptied_in_its_place(
    data: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    fill(data)
    monkeypatch.setattr(fimd.commits.aside, "rename", refuse)
    run(data, request(image, "layer"))
    assert list((data / "root").iterdir()) == []
    assert seen(data, image) == {**CONTENT, "dir/old": b"old"}


# The system calls that change something, of the modules that the commit uses.
CHANGING = (
    *((os, name) for name in ("write", "pwrite", "fsync", "ftruncate", "link", "rename", "mkdir")),
    *((os, name) for name in ("unlink", "rmdir", "symlink", "chmod", "utime", "copy_file_range")),
    *((module, "rename") for module in (fimd.commits.aside, fimd.commits.newfile)),
)


@pytest.mark.parametrize("named", [False, True], ids=["nameless", "named"])
@pytest.mark.parametrize("mode", ["binary", "layer", "file"])
def test_killed_at_any_step_nothing_is_lost_and_nothing_half_done(
    mode: str, named: bool, data: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        monkeypatch.setattr(NewFile, "_open_nameless", lambda _self: False)
    fill(data)
    target = tmp_path / "out" / "own.layer"
    target.parent.mkdir()
    expected = {**CONTENT, "dir/old": b"old"}
    original = image.read_bytes()
    number = 0
    while True:
        asked = request(image, mode, str(target))
        killed = killed_at(number, CHANGING, partial(run, data, asked))
        assert seen(data, image, target) == expected, number
        if not killed:
            break
        with opened(data) as directory, exclusive(directory):
            messages = recover(directory)
        assert seen(data, image, target) == expected, number
        assert list((data / "tmp").iterdir()) == [], (number, messages)
        assert {path.name for path in target.parent.iterdir()} <= {"own.layer"}
        # begin anew, with the changes in the upper and nothing else
        target.unlink(missing_ok=True)
        for path in (data / "layers").iterdir():
            path.unlink()
        if mode == "binary" and number % 3 == 0:
            made = run(data, request(image, "layer"))  # also a torn image takes another layer
            if made is not None:
                Path(made.path).unlink()
        image.write_bytes(original)
        fill(data)
        number += 1
    assert number > 12
    assert list((data / "root").iterdir()) == []


@dataclass
class Diary:
    """What was done to the disk, in its order: ("write", file), ("sync", file), ("link", name) …"""

    calls: list[tuple[str, object]] = field(default_factory=list)

    def keep(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take note of each call that counts."""

        def noted(name: str, function: Callable[..., Any], about: Callable[..., object]) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                result = function(*arguments, **options)
                self.calls.append((name, about(*arguments)))
                return result

            return call

        for name in ("write", "pwrite", "ftruncate"):
            function = noted("write", getattr(os, name), lambda fd, *_: os.fstat(fd).st_ino)
            monkeypatch.setattr(os, name, function)
        copied = noted("write", os.copy_file_range, lambda _, fd, *__: os.fstat(fd).st_ino)
        monkeypatch.setattr(os, "copy_file_range", copied)
        synced = noted("sync", os.fsync, lambda fd: os.fstat(fd).st_ino)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "link", noted("link", os.link, lambda _, name: name))
        moved = noted("exchange", vars(fimd.commits.aside)["rename"], lambda *_: None)
        monkeypatch.setattr(fimd.commits.aside, "rename", moved)
        removed = noted("remove", vars(fimd.commits.aside)["remove_tree"], lambda *_: None)
        monkeypatch.setattr(fimd.commits.aside, "remove_tree", removed)

    def indices(self, name: str, about: object = None) -> list[int]:
        """Where in the diary something was done."""
        return [
            index
            for index, call in enumerate(self.calls)
            if call[0] == name and about in {None, call[1]}
        ]


@pytest.mark.parametrize("mode", ["binary", "layer", "file"])
def test_each_step_is_on_the_disk_before_the_next_relies_on_it(
    mode: str, data: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(data)
    target = tmp_path / "out" / "own.layer"
    target.parent.mkdir()
    diary = Diary()
    asked = request(image, mode, str(target))
    diary.keep(monkeypatch)
    made = run(data, asked)
    assert made is not None
    layer = os.stat(made.path).st_ino
    writes = diary.indices("write", layer)
    syncs = diary.indices("sync", layer)
    [exchange] = diary.indices("exchange")
    [removal] = diary.indices("remove")
    if mode == "binary":  # the last write is the length, which publishes the layer
        published = writes[-1]
        assert any(writes[-2] < sync < published for sync in syncs)
        assert any(published < sync < exchange for sync in syncs)
    else:
        [published] = diary.indices("link")
        assert any(writes[-1] < sync < published for sync in syncs)
        directory = os.stat(os.path.dirname(made.path)).st_ino
        assert any(published < sync < exchange for sync in diary.indices("sync", directory))
    for directory in (os.stat(data).st_ino, os.stat(data / "tmp").st_ino):
        assert any(exchange < sync < removal for sync in diary.indices("sync", directory))


def test_a_torn_append_is_cut_off_by_the_next_commit_which_says_so(data: Path, image: Path) -> None:
    fill(data)
    with image.open("ab") as file:
        file.write(bytes(8 + 64) + b"torn" * 1000)
    notes: list[str] = []
    run(data, request(image, "binary"), Work(note=notes.append))
    assert any("cut off" in note for note in notes)
    assert len(chain(image)) == 2
    assert seen(data, image) == {**CONTENT, "dir/old": b"old"}


@pytest.mark.parametrize("mode", ["binary", "layer", "file"])
def test_on_a_full_disk_nothing_is_lost(
    mode: str, data: Path, image: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(data)
    (data / "root" / "big").write_bytes(os.urandom(2 << 20))
    content = {**CONTENT, "big": (data / "root" / "big").read_bytes(), "dir/old": b"old"}
    before = image.read_bytes()
    part = {"layer": data / "layers", "binary": data / "tmp"}.get(mode)
    with ExitStack() as mounted:
        if part is not None:
            subprocess.run(["mount", "--bind", small_disk, part], check=True)
            mounted.callback(lambda: subprocess.run(["umount", part], check=True))
        with pytest.raises((PackError, ImageError, FimError), match=r"[Nn]o space"):
            run(data, request(image, mode, str(small_disk / "x.layer")))
    assert seen(data, image) == content
    assert image.read_bytes() == before
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_up_while_the_image_grows_leaves_it_as_it_was(
    data: Path, image: Path, small_disk: Path
) -> None:
    small = small_disk / "app.flatimage"
    small.write_bytes(b"")
    with image.open("rb") as source, small.open("r+b") as target:
        size = os.fstat(source.fileno()).st_size
        for offset in range(0, size, 4096):
            source.seek(offset)
            block = source.read(4096)
            if block.strip(b"\0"):
                target.seek(offset)
                target.write(block)
        target.truncate(size)
    fill(data)
    (data / "root" / "big").write_bytes(os.urandom(2 << 20))
    before = small.read_bytes()
    with pytest.raises(ImageError, match="no space left"):
        run(data, request(small, "binary"))
    assert small.read_bytes() == before
    assert (data / "root" / "big").exists()
    (data / "root" / "big").unlink()
    assert run(data, request(small, "binary")) is not None
    assert len(chain(small)) == 2


def test_a_writer_that_comes_in_the_last_moment_keeps_what_it_wrote(
    data: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(data)
    set_aside = fimd.commits.aside.set_aside

    def late(directory: OpenData) -> Any:
        aside = set_aside(directory)
        (Path(aside.where) / "late").write_bytes(b"late")
        return aside

    monkeypatch.setattr("fimd.commits.commit.set_aside", late)
    notes: list[str] = []
    run(data, request(image, "layer"), Work(note=notes.append))
    assert (data / "root" / "late").read_bytes() == b"late"
    assert any("still writes" in note for note in notes)
    assert seen(data, image) == {**CONTENT, "dir/old": b"old", "late": b"late"}
