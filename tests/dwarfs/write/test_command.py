"""`fimctl dwarfs create` makes images and says what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fimd.dwarfs import Image
from tests.dwarfs.write.trees import found

ROOT = Path(__file__).parents[3]


def run(
    *words: object, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "fimctl", "dwarfs", "create", *map(str, words)],
        input=stdin,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        timeout=60,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source" / "d").mkdir(parents=True)
    for name in ("a", "d/b", "d/line\nbreak"):
        (tmp_path / "source" / name).write_text(name)
    return tmp_path / "source"


def test_a_directory_becomes_an_image_and_is_summed_up(source: Path, tmp_path: Path) -> None:
    done = run("-i", source, "-o", tmp_path / "image", "-l", 1)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"in 3 files" in done.stdout
    assert set(found(tmp_path / "image")) == {b"", b"a", b"d", b"d/b", b"d/line\nbreak"}


def test_the_summary_is_json_where_that_is_asked_for(source: Path, tmp_path: Path) -> None:
    done = run("-i", source, "-o", tmp_path / "image", "--json")
    summary = json.loads(done.stdout)
    assert summary["files"] == 3
    assert summary["bytes_out"] == (tmp_path / "image").stat().st_size
    assert summary["skipped"] == []


@pytest.mark.parametrize("text", [b"a\nd/b\n", b"d/line\nbreak\0a\0d/b\0"])
def test_an_input_list_is_lines_or_nul_ended(text: bytes, source: Path, tmp_path: Path) -> None:
    done = run("-i", source, "-o", tmp_path / "image", "--input-list", "-", stdin=text)
    assert done.returncode == 0
    names = set(found(tmp_path / "image"))
    assert names == {b"", b"a", b"d", b"d/b"} | ({b"d/line\nbreak"} if b"\0" in text else set())
    (tmp_path / "list").write_bytes(text)
    run("-i", source, "-o", tmp_path / "same", "--input-list", tmp_path / "list")
    assert (tmp_path / "same").read_bytes() == (tmp_path / "image").read_bytes()


def test_an_image_is_only_replaced_by_force(source: Path, tmp_path: Path) -> None:
    (tmp_path / "image").write_text("precious")
    done = run("-i", source, "-o", tmp_path / "image")
    assert done.returncode == 1
    assert b"exists already: remove it, or add --force" in done.stderr
    assert (tmp_path / "image").read_text() == "precious"
    assert run("-i", source, "-o", tmp_path / "image", "-f").returncode == 0
    assert b"a" in found(tmp_path / "image")


def test_owner_group_level_and_time_of_making_are_taken(source: Path, tmp_path: Path) -> None:
    words = ("-i", source, "-o", tmp_path / "image", "--set-owner", 5, "--set-group", 6)
    done = run(
        *words, environment={"SOURCE_DATE_EPOCH": "1234567890", "FIM_COMPRESSION_LEVEL": "1"}
    )
    assert done.returncode == 0
    assert {facts[1:3] for facts in found(tmp_path / "image").values()} == {(5, 6)}
    with Image.open(tmp_path / "image") as image:
        assert image.created == 1234567890
        assert image.block_size == 1 << 20


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (("-i", "missing"), {}, b"missing: cannot open the source: No such file"),
        (("-i", ".", "--input-list", "missing"), {}, b"missing: No such file"),
        (("-i", "."), {"SOURCE_DATE_EPOCH": "now"}, b"SOURCE_DATE_EPOCH is 'now'"),
        (("-i", ".", "--threads", "0"), {}, b"'0' is none of 1 to 256"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    words: tuple[str, ...], environment: dict[str, str], message: bytes, tmp_path: Path
) -> None:
    done = run(*words, "-o", tmp_path / "image", environment=environment)
    assert done.returncode != 0
    assert message in done.stderr
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "image").exists()
