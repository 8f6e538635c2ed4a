"""Layers of directories, by the embedded writer or by mkdwarfs."""

import os
import sys
import threading
from pathlib import Path

import pytest

from fimd.base.errors import FimError, InvalidArgumentError, UnsupportedError
from fimd.base.settings import Settings
from fimd.commits import mkdwarfs
from fimd.commits.create import create_layer
from fimd.commits.work import Work
from fimd.dwarfs.errors import CancelledError, DamagedError, DwarfsError
from fimd.dwarfs.reader import Image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with three files."""
    top = tmp_path / "source"
    (top / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (top / name).write_text(name)
    return top


def names(layer: Path) -> set[bytes]:
    """The paths in a layer."""
    with Image.open(layer) as image:
        return {path for path, _ in image.walk()} - {b""}


def test_a_layer_replaces_the_file_that_was_there(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("old")
    size = create_layer(str(source), str(output), 1, Work())
    assert size == output.stat().st_size
    assert names(output) == {b"a", b"b", b"sub", b"sub/c"}
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_only_what_a_list_names_is_packed(source: Path, tmp_path: Path, separator: str) -> None:
    (tmp_path / "list").write_text(separator.join(["a", "sub/c", ""]))
    create_layer(str(source), str(tmp_path / "out"), 1, Work(), str(tmp_path / "list"))
    assert names(tmp_path / "out") == {b"a", b"sub", b"sub/c"}


def test_attributes_that_a_layer_cannot_hold_are_told(source: Path, tmp_path: Path) -> None:
    for name in ("a", "sub", "sub/c"):
        try:
            os.setxattr(source / name, "user.mine", b"x")
        except OSError:
            pytest.skip("this filesystem has no user attributes")
    notes: list[str] = []
    create_layer(str(source), str(tmp_path / "out"), 1, Work(note=notes.append))
    assert notes == ["the attribute user.mine of 3 files is not kept: DwarFS has none"]
    notes.clear()
    (tmp_path / "list").write_text("b\nsub/c\n")
    create_layer(str(source), str(tmp_path / "out"), 1, Work(note=notes.append), f"{tmp_path}/list")
    assert notes == ["the attribute user.mine of 2 files is not kept: DwarFS has none"]


def test_the_layer_itself_is_no_part_of_what_it_is_made_of(source: Path) -> None:
    for _ in range(2):
        create_layer(str(source), str(source / "out"), 1, Work(), program="/never/started")
    assert names(source / "out") == {b"a", b"b", b"sub", b"sub/c"}


def test_what_cannot_be_packed_leaves_the_old_file(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("old")
    with pytest.raises(InvalidArgumentError, match="does not exist"):
        create_layer(str(tmp_path / "none"), str(output), 1, Work())
    with pytest.raises(FimError, match="can't be written"):
        create_layer(str(source), str(tmp_path / "no" / "out"), 1, Work())
    with pytest.raises(CancelledError):
        create_layer(str(source), str(output), 1, Work(cancelled=lambda: True))
    assert output.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


def fake(tmp_path: Path, body: str) -> str:
    """A program in the place of mkdwarfs, which no test machine needs to have."""
    program = tmp_path / "mkdwarfs"
    program.write_text(f"#!{sys.executable}\nimport sys, time\nwords = sys.argv[1:]\n{body}\n")
    program.chmod(0o755)
    return str(program)


def test_mkdwarfs_is_told_what_to_pack_and_its_layer_is_verified(
    source: Path, tmp_path: Path
) -> None:
    create_layer(str(source), str(tmp_path / "ready"), 1, Work())
    copy = "import shutil; shutil.copy({!r}, words[words.index('--output') + 1])"
    program = fake(
        tmp_path,
        f"open({str(tmp_path / 'words')!r}, 'w').write(' '.join(words))\n"
        + copy.format(str(tmp_path / "ready")),
    )
    create_layer(str(source), str(tmp_path / "out"), 5, Work(), program=program)
    assert names(tmp_path / "out") == names(tmp_path / "ready")
    words = (tmp_path / "words").read_text()
    assert f"--input {source}" in words
    assert "--compress-level 5" in words

    program = fake(tmp_path, copy.format("/etc/passwd"))
    with pytest.raises((DamagedError, DwarfsError), match="not a DwarFS image"):
        create_layer(str(source), str(tmp_path / "other"), 5, Work(), program=program)
    assert not (tmp_path / "other").exists()


def test_what_mkdwarfs_says_is_the_error_and_it_can_be_cancelled(
    source: Path, tmp_path: Path
) -> None:
    program = fake(tmp_path, "sys.exit('E the disk is tired')")
    with pytest.raises(FimError, match="the disk is tired"):
        create_layer(str(source), str(tmp_path / "out"), 5, Work(), program=program)
    program = fake(tmp_path, "time.sleep(60)")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(CancelledError):
        create_layer(
            str(source), str(tmp_path / "out"), 5, Work(cancelled=stop.is_set), program=program
        )
    assert sorted(os.listdir(tmp_path)) == ["mkdwarfs", "source"]


def test_the_setting_engine_chooses_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mkdwarfs.find(Settings()) is None
    with pytest.raises(UnsupportedError, match="mkdwarfs is not installed"):
        mkdwarfs.find(Settings(engine="external"))
    program = fake(tmp_path, "")
    assert mkdwarfs.find(Settings()) == program
    assert mkdwarfs.find(Settings(engine="external")) == program
    assert mkdwarfs.find(Settings(engine="embedded")) is None
