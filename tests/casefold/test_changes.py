"""What is removed, renamed or made anew is so in every spelling at once, whoever does it."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fimd.base.system_calls import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.support.files import rename_with

if TYPE_CHECKING:
    from tests.casefold.conftest import Serve, View


# stale spellings: what the kernel has cached under another one


def test_a_removed_file_is_gone_in_every_spelling_at_once(plain: View) -> None:
    for _ in range(200):
        (plain.root / "A").touch()
        assert (plain.root / "a").exists()
        assert (plain.root / "A").exists()
        (plain.root / "a").unlink()
        assert not (plain.root / "A").exists()
        assert not os.access(plain.root / "A", os.F_OK)
        assert not (plain.root / "a").exists()


def test_a_removed_file_cannot_be_opened_by_a_spelling_used_before(plain: View) -> None:
    for _ in range(200):
        (plain.root / "a").write_text("old")
        assert (plain.root / "A").read_text() == "old"
        (plain.root / "a").unlink()
        with pytest.raises(FileNotFoundError):
            (plain.root / "A").read_text()


def test_a_renamed_file_has_left_every_spelling_at_once(plain: View) -> None:
    (plain.root / "a").write_text("x")
    spellings = ["file", "File", "FILE", "fiLE"]
    for turn in range(200):
        old, new = ("a", "file") if turn % 2 == 0 else (random.choice(spellings), "A")
        os.rename(plain.root / old, plain.root / new)
        for spelling in spellings:
            assert (plain.root / spelling).exists() is (turn % 2 == 0), (turn, spelling)
        assert os.access(plain.root / "a", os.F_OK) is (turn % 2 == 1)


def test_a_file_created_again_is_the_new_one_in_every_spelling(plain: View) -> None:
    for turn in range(200):
        (plain.root / "Foo").write_text(f"{turn}")
        for spelling in ("foo", "FOO", "Foo"):
            assert (plain.root / spelling).read_text() == f"{turn}"
            assert (plain.root / spelling).stat().st_size == len(f"{turn}")
        (plain.root / "foo").unlink()


def test_a_name_looked_for_in_vain_is_found_once_it_is_created_in_another_case(plain: View) -> None:
    for turn in range(100):
        assert not (plain.root / f"New{turn}").exists()
        assert not (plain.root / f"new{turn}").exists()
        (plain.root / f"NEW{turn}").touch()
        assert (plain.root / f"New{turn}").exists()
        assert (plain.root / f"new{turn}").exists()


def test_a_replaced_file_is_the_new_one_in_every_spelling_at_once(plain: View) -> None:
    for turn in range(100):
        (plain.root / "target").write_text("old")
        assert (plain.root / "Target").read_text() == "old"
        (plain.root / "fresh").write_text(f"new {turn}")
        os.replace(plain.root / "fresh", plain.root / "TARGET")
        assert (plain.root / "Target").read_text() == f"new {turn}"
        assert (plain.root / "target").stat().st_size == len(f"new {turn}")


def test_a_renamed_directory_has_left_every_spelling_and_its_content_went_along(
    plain: View,
) -> None:
    (plain.root / "one").mkdir()
    (plain.root / "One" / "file").write_text("x")
    for _ in range(100):
        assert (plain.root / "ONE" / "FILE").exists()
        os.rename(plain.root / "One", plain.root / "TWO")
        assert not (plain.root / "ONE" / "FILE").exists()
        assert not (plain.root / "one").exists()
        assert (plain.root / "Two" / "file").exists()
        os.rename(plain.root / "two", plain.root / "one")
        assert not (plain.root / "Two").exists()


def test_a_removed_directory_is_gone_in_every_spelling(plain: View) -> None:
    for _ in range(100):
        (plain.root / "Dir").mkdir()
        assert (plain.root / "DIR").is_dir()
        (plain.root / "dir").rmdir()
        assert not (plain.root / "DIR").exists()
        assert not (plain.root / "Dir").exists()


def test_an_open_file_lives_on_when_it_is_removed_by_another_spelling(plain: View) -> None:
    (plain.root / "temp").write_text("kept")
    with (plain.root / "Temp").open("r+") as file:
        (plain.root / "TEMP").unlink()
        assert file.read() == "kept"
        file.write(" on")
        file.flush()
        assert os.fstat(file.fileno()).st_size == 7
        assert os.fstat(file.fileno()).st_nlink == 0
        time.sleep(0.05)
        assert not (plain.root / "temp").exists()


# renaming


def test_a_rename_that_only_changes_case_succeeds_and_changes_nothing(plain: View) -> None:
    (plain.root / "name").write_text("x")
    (plain.root / "dir").mkdir()
    os.rename(plain.root / "name", plain.root / "NAME")
    os.rename(plain.root / "DIR", plain.root / "Dir")
    assert sorted(os.listdir(plain.root)) == ["dir", "name"]
    assert (plain.root / "Name").read_text() == "x"


@pytest.mark.parametrize("mode", ["plain", "preserving"])
def test_a_rename_that_only_changes_case_never_reaches_the_filesystem(
    request: pytest.FixtureRequest, mode: str
) -> None:
    view: View = request.getfixturevalue(mode)
    (view.root / "foo").write_text("x")
    (view.root / "other").write_text("y")
    for _ in range(2):  # with neither spelling cached by the kernel, and with both
        os.rename(view.root / "foo", view.root / "FOO")
        os.rename(view.root / "FOO", view.root / "Foo")
        assert (view.root / "Foo").stat().st_ino == (view.root / "foo").stat().st_ino
    with pytest.raises(FileExistsError):
        rename_with(RENAME_NOREPLACE, view.root / "foo", view.root / "Foo")
    moved = subprocess.run(
        ["mv", view.root / "foo", view.root / "Foo"], capture_output=True, text=True, check=False
    )
    assert moved.returncode == 1
    assert "are the same file" in moved.stderr
    rename_with(RENAME_EXCHANGE, view.root / "foo", view.root / "FOO")
    assert sorted(os.listdir(view.root)) == ["foo", "other"]
    assert (view.root / "fOO").read_text() == "x"


def test_preserving_case_another_spelling_is_had_by_way_of_another_name(preserving: View) -> None:
    (preserving.root / "foo").write_text("x")
    (preserving.root / "dir" / "inner").mkdir(parents=True)
    for name, wanted in (("foo", "Foo"), ("dir", "Dir")):
        between, target = preserving.root / "between", preserving.root / wanted
        subprocess.run(["mv", preserving.root / name, between], check=True)
        subprocess.run(["mv", between, target], check=True)
    assert sorted(os.listdir(preserving.root)) == ["Dir", "Foo"]
    assert (preserving.root / "DIR" / "INNER").is_dir()


def test_preserving_case_a_rename_shows_the_new_spelling(preserving: View) -> None:
    (preserving.root / "old").touch()
    os.rename(preserving.root / "OLD", preserving.root / "Between")
    os.rename(preserving.root / "between", preserving.root / "Old")
    assert os.listdir(preserving.root) == ["Old"]


def test_preserving_case_what_replaces_a_file_has_the_new_spelling(preserving: View) -> None:
    (preserving.root / "Target").write_text("old")
    (preserving.root / "new").write_text("new")
    os.rename(preserving.root / "new", preserving.root / "TARGET")
    assert os.listdir(preserving.root) == ["TARGET"]
    assert (preserving.root / "target").read_text() == "new"


def test_a_renamed_name_stored_with_capitals_becomes_lower_case(source: Path, serve: Serve) -> None:
    (source / "ReadMe").write_text("x")
    view = serve(source)
    os.rename(view.root / "readme", view.root / "NewName")
    assert os.listdir(source) == ["newname"]


def test_what_replaces_a_name_stored_with_capitals_is_alone_and_in_lower_case(
    source: Path, serve: Serve
) -> None:
    (source / "ReadMe").write_text("old")
    view = serve(source)
    (view.root / "new").write_text("new")
    os.rename(view.root / "NEW", view.root / "README")
    assert os.listdir(source) == ["readme"]
    assert (view.root / "ReadMe").read_text() == "new"


def test_a_removed_name_stored_with_capitals_is_gone(source: Path, serve: Serve) -> None:
    (source / "ReadMe").write_text("x")
    (source / "Dir").mkdir()
    view = serve(source)
    (view.root / "readme").unlink()
    (view.root / "dir").rmdir()
    assert os.listdir(source) == []


def test_noreplace_counts_every_spelling_as_taken(plain: View) -> None:
    (plain.root / "a").write_text("a")
    (plain.root / "b").write_text("b")
    with pytest.raises(FileExistsError):
        rename_with(RENAME_NOREPLACE, plain.root / "A", plain.root / "B")
    rename_with(RENAME_NOREPLACE, plain.root / "A", plain.root / "C")
    assert sorted(os.listdir(plain.source)) == ["b", "c"]


def test_exchange_swaps_two_files_in_every_spelling(plain: View) -> None:
    (plain.root / "a").write_text("a")
    (plain.root / "dir").mkdir()
    (plain.root / "dir" / "b").write_text("b")
    for spelling in ("a", "A", "DIR/b", "dir/B"):
        (plain.root / spelling).read_text()
    rename_with(RENAME_EXCHANGE, plain.root / "A", plain.root / "Dir" / "B")
    assert [(plain.root / name).read_text() for name in ("a", "A", "DIR/b", "dir/B")] == list(
        "bbaa"
    )


def test_exchange_swaps_a_file_and_a_directory(plain: View) -> None:
    (plain.root / "file").write_text("content")
    (plain.root / "dir" / "below").mkdir(parents=True)
    rename_with(RENAME_EXCHANGE, plain.root / "file", plain.root / "dir")
    assert (plain.root / "FILE" / "BELOW").is_dir()
    assert (plain.root / "DIR").read_text() == "content"


def test_a_rename_never_replaces_a_name_that_is_hidden(source: Path, serve: Serve) -> None:
    (source / "README").write_text("hidden")
    (source / "readme").write_text("shown")
    (source / "new").write_text("new")
    view = serve(source, "preserve")
    os.rename(view.root / "new", view.root / "README")
    assert {path.read_text() for path in source.iterdir()} >= {"hidden"}


# changes made underneath


def test_what_others_add_to_the_source_is_found_at_once(plain: View) -> None:
    assert not (plain.root / "Late").exists()
    time.sleep(0.02)  # a directory's time has the kernel clock's granularity
    (plain.source / "LATE").write_text("x")
    assert (plain.root / "late").read_text() == "x"
    assert os.listdir(plain.root) == ["LATE"]


def test_what_others_remove_or_rename_in_the_source_is_noticed(plain: View) -> None:
    (plain.source / "One").write_text("x")
    assert os.listdir(plain.root) == ["One"]
    os.rename(plain.source / "One", plain.source / "Two")
    assert os.listdir(plain.root) == ["Two"]
    assert (plain.root / "TWO").read_text() == "x"
    (plain.source / "Two").unlink()
    assert os.listdir(plain.root) == []


def test_changes_by_the_view_and_by_others_add_up(plain: View) -> None:
    for turn in range(20):
        (plain.root / f"Ours{turn}").touch()
        (plain.source / f"Theirs{turn}").touch()
        time.sleep(0.02)
        assert (plain.root / f"THEIRS{turn}").exists()
        assert (plain.root / f"OURS{turn}").exists()
    assert len(os.listdir(plain.root)) == 40
