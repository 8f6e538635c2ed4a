"""Names: stored in lower case, found in any case, at once and for everybody."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fimd.system_calls import RENAME_EXCHANGE, RENAME_NOREPLACE, rename

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.casefold.conftest import Serve, Serving, View

PROJECT = Path(__file__).resolve().parents[2]


def rename_with(flags: int, source: Path, target: Path) -> None:
    rename(os.fsencode(source), os.fsencode(target), -100, -100, flags)


def test_a_file_is_stored_in_lower_case(plain: View) -> None:
    (plain.root / "file.TXT").write_text("x")
    assert os.listdir(plain.source) == ["file.txt"] == os.listdir(plain.root)


def test_any_spelling_finds_a_file(plain: View) -> None:
    (plain.root / "MyFile.TXT").write_text("content")
    for spelling in ("myfile.txt", "MYFILE.TXT", "MyFile.TXT", "mYfIlE.tXt"):
        assert (plain.root / spelling).read_text() == "content"


def test_any_spelling_of_a_path_finds_a_file(plain: View) -> None:
    (plain.root / "Textures" / "HiRes").mkdir(parents=True)
    (plain.root / "TEXTURES" / "hires" / "Sky.DDS").write_text("sky")
    assert (plain.root / "textures" / "HIRES" / "sKY.dds").read_text() == "sky"
    assert (plain.source / "textures/hires/sky.dds").is_file()


def test_everything_else_is_stored_in_lower_case_too(plain: View) -> None:
    os.mkdir(plain.root / "DIR")
    os.symlink("Target", plain.root / "LINK")
    os.mkfifo(plain.root / "FIFO")
    (plain.root / "File").touch()
    os.link(plain.root / "file", plain.root / "HARD")
    os.rename(plain.root / "File", plain.root / "RENAMED")
    assert sorted(os.listdir(plain.source)) == ["dir", "fifo", "hard", "link", "renamed"]


def test_names_stored_with_capitals_are_found_and_listed_as_they_are(
    source: Path, serve: Serve
) -> None:
    (source / "Program Files").mkdir()
    (source / "Program Files" / "ReadMe.TXT").write_text("x")
    view = serve(source)
    assert os.listdir(view.root) == ["Program Files"]
    assert os.listdir(view.root / "PROGRAM FILES") == ["ReadMe.TXT"]
    assert (view.root / "program files" / "readme.txt").read_text() == "x"


def test_letters_beyond_ascii_are_found_in_any_case(plain: View) -> None:
    (plain.root / "Übergröße ЖΣ").write_text("x")
    assert os.listdir(plain.source) == ["übergröße жσ"]
    assert (plain.root / "ÜBERGRÖẞE Жς").read_text() == "x"


def test_names_that_are_not_utf8_are_found_in_any_case_of_their_ascii_part(plain: View) -> None:
    root = os.fsencode(plain.root)
    with open(root + b"/\xffABC\xfe", "wb") as file:
        file.write(b"x")
    assert os.listdir(os.fsencode(plain.source)) == [b"\xffabc\xfe"]
    assert os.path.exists(root + b"/\xffaBc\xfe")


def test_what_is_created_again_in_another_case_is_the_same_file(plain: View) -> None:
    (plain.root / "Notes").write_text("first")
    (plain.root / "NOTES").write_text("second")
    assert (plain.root / "notes").read_text() == "second"
    with pytest.raises(FileExistsError):
        os.open(plain.root / "nOTES", os.O_CREAT | os.O_EXCL)
    with pytest.raises(FileExistsError):
        os.mkdir(plain.root / "NOtes")
    with pytest.raises(FileExistsError):
        os.symlink("x", plain.root / "NOtes")
    (plain.root / "b").touch()
    with pytest.raises(FileExistsError):
        os.link(plain.root / "b", plain.root / "NOtes")


def test_a_name_that_is_too_long_is_said_to_be(plain: View) -> None:
    with pytest.raises(OSError, match="File name too long"):
        (plain.root / ("x" * 256)).stat()
    with pytest.raises(OSError, match="File name too long"):
        (plain.root / ("Ⱥ" * 120)).touch()  # 240 bytes, of which lower case makes 360


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


# names that differ only in case


def test_of_names_that_fold_alike_all_spellings_see_the_same_one(
    source: Path, serve: Serve
) -> None:
    for name in ("README", "readme", "ReadMe"):
        (source / name).write_text(name)
    for name in ("Data", "DATA"):
        (source / name).write_text(name)
    for _ in range(2):
        view = serve(source)
        assert sorted(os.listdir(view.root)) == ["DATA", "readme"]
        for spelling in ("README", "readme", "ReadMe", "rEADME"):
            assert (view.root / spelling).read_text() == "readme"
        assert (view.root / "Data").read_text() == "DATA" == (view.root / "data").read_text()


def test_names_that_fold_alike_are_reported_once_a_directory(source: Path, serve: Serve) -> None:
    for name in ("README", "readme"):
        (source / name).touch()
    view = serve(source)
    for _ in range(5):
        os.listdir(view.root)
        (view.root / "Readme").exists()
    report = f"names in {source} differ only in case, and only the first of each group is found"
    assert view.log.read_text().count(report) == 1
    assert "readme, README" in view.log.read_text()


def test_a_rename_never_replaces_a_name_that_is_hidden(source: Path, preserve_source: View) -> None:
    view = preserve_source
    os.rename(view.root / "new", view.root / "README")
    assert {path.read_text() for path in source.iterdir()} >= {"hidden"}


@pytest.fixture
def preserve_source(source: Path, serve: Serve) -> View:
    (source / "README").write_text("hidden")
    (source / "readme").write_text("shown")
    (source / "new").write_text("new")
    return serve(source, "preserve")


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


# preserving case


def test_preserving_case_shows_names_as_they_were_created(preserving: View) -> None:
    (preserving.root / "MyFile.TXT").write_text("x")
    (preserving.root / "My Dir").mkdir()
    assert sorted(os.listdir(preserving.root)) == ["My Dir", "MyFile.TXT"]
    assert sorted(os.listdir(preserving.source)) == ["My Dir", "MyFile.TXT"]
    assert (preserving.root / "MYFILE.txt").read_text() == "x"


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


# Wine's habit


def random_case(path: str, generator: random.Random) -> str:
    return "".join(generator.choice((c.upper(), c.lower())) for c in path)


def test_five_thousand_files_are_read_by_paths_of_random_case(plain: View) -> None:
    generator = random.Random(5000)
    paths = [
        f"Drive_{'CD'[number % 2]}/Program {number % 7}/Data{number % 50:02}/Texture.{number}.Dds"
        for number in range(5000)
    ]
    for path in paths:  # half of them lie there with capitals, half are written through the view
        file = (plain.source if path.startswith("Drive_C") else plain.root) / path
        if not file.parent.is_dir():
            file.parent.mkdir(parents=True)
        file.write_text(path)
    generator.shuffle(paths)
    wrong = [
        path for path in paths if (plain.root / random_case(path, generator)).read_text() != path
    ]
    assert not wrong
    lost = [
        path for path in paths[:500] if (plain.root / random_case(path + "x", generator)).exists()
    ]
    assert not lost


# serving


def test_a_mount_point_within_the_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "within").mkdir()
    result = subprocess.run(
        [sys.executable, PROJECT / "tests/casefold/serve_view.py", tmp_path, tmp_path / "within"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode != 0
    assert "which lies within it" in result.stderr


def test_a_directory_can_be_covered_by_its_own_view(
    source: Path, tmp_path: Path, serving: Serving
) -> None:
    (source / "Name").write_text("x")
    with serving(source, source, log=tmp_path / "log") as view:
        assert (view.root / "NAME").read_text() == "x"


def test_the_mount_table_shows_the_given_name(plain: View) -> None:
    assert f"fimd,test {plain.root.parent} fuse " in Path("/proc/mounts").read_text()


def test_a_plain_user_can_serve_and_use_a_view(
    tmp_path: Path, open_up: Callable[[Path], None]
) -> None:
    if os.getuid() != 0:
        pytest.skip("every other test here runs as a plain user already")
    if shutil.which("setpriv") is None or os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("setpriv is missing or /dev/fuse is not for everybody")
    script = f"""
import os, sys
sys.path[:0] = [{str(PROJECT)!r}, {str(PROJECT / "tests/casefold")!r}]
from pathlib import Path
from conftest import serving
base = Path({str(tmp_path / "mine")!r})
(base / "source").mkdir(); (base / "view").mkdir()
with serving(base / "source", base / "view", log=base / "log") as view:
    (view.root / "File").write_text("x")
    (view.root / "Dir").mkdir()
    os.rename(view.root / "FILE", view.root / "DIR/New")
    assert (view.root / "dir/NEW").read_text() == "x"
    assert (view.root / "dir/NEW").stat().st_uid == os.getuid() == 65534
    (view.root / "dir/new").unlink(); (view.root / "dir").rmdir()
    assert os.listdir(view.source) == []
    (view.source / "Closed").mkdir(); (view.source / "Closed" / "Name").touch()
    (view.source / "Closed").chmod(0o311)
    assert (view.root / "CLOSED" / "Name").exists()
    assert not (view.root / "CLOSED" / "other").exists()
    (view.root / "CLOSED" / "New").touch()
    assert (view.source / "Closed" / "new").exists()
"""
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", 65534, 65534)
    open_up(tmp_path / "mine")
    if subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", "import pyfuse3"],
        capture_output=True,
        timeout=20,
        check=False,
    ).returncode:
        pytest.skip("the interpreter is closed to other users")
    result = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            sys.executable,
            "-c",
            script,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert result.returncode == 0, result.stderr
