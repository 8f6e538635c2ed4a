"""Names: stored in lower case, found in any case, by everybody."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.casefold.conftest import Serve, Serving, View

PROJECT = Path(__file__).resolve().parents[2]


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


# preserving case


def test_preserving_case_shows_names_as_they_were_created(preserving: View) -> None:
    (preserving.root / "MyFile.TXT").write_text("x")
    (preserving.root / "My Dir").mkdir()
    assert sorted(os.listdir(preserving.root)) == ["My Dir", "MyFile.TXT"]
    assert sorted(os.listdir(preserving.source)) == ["My Dir", "MyFile.TXT"]
    assert (preserving.root / "MYFILE.txt").read_text() == "x"


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
        timeout=60,
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
        timeout=60,
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
