"""`fimctl dwarfs`, by its parser and by its exit codes."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fimctl.commands import dwarfs
from fimctl.errors import ClientError


def command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    dwarfs.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["dwarfs", *map(str, words)])
    code: int = parsed.func(parsed)
    return code


def test_info_tells_what_an_image_is(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("info", images / "made/mix-default.dwarfs") == 0
    text = capsys.readouterr().out
    assert "DwarFS version 2.5 at offset 0" in text
    assert "blocks: 1 (1 zstd)" in text
    assert "METADATA_V2_SCHEMA" in text


def test_info_finds_an_image_in_a_file(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("info", "--json", images / "embedded/pre.bin") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["offset"], facts["size"], facts["version"]) == (100003, 305969, "2.5")


def test_offset_and_size_name_an_image_between_other_bytes(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = images / "embedded/both.bin"
    assert command("list", "-O", 65536, "--image-size", 305969, path) == 0
    assert "case/Makefile" in capsys.readouterr().out.splitlines()


def test_list_prints_every_name(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list", images / "made/tiny.dwarfs") == 0
    assert capsys.readouterr().out.split() == ["a.txt", "b.txt", "bin", "bin/hello", "link"]
    assert command("list", "-l", images / "made/tiny.dwarfs") == 0
    assert "-> bin/hello" in capsys.readouterr().out
    assert command("list", "--json", images / "made/tiny.dwarfs") == 0
    entries = json.loads(capsys.readouterr().out)
    assert entries[1]["path"] == "a.txt"
    assert entries[-1]["target"] == "bin/hello"


def test_check_passes_what_is_sound_and_names_what_is_not(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("check", "--content", images / "made/tiny.dwarfs") == 0
    assert command("check", images / "damaged/zstd-block-sha-bitflip.dwarfs") == 1
    assert "section BLOCK, offset 0: integrity check error" in capsys.readouterr().err
    assert command("check", "--json", images / "damaged/history-bitflip.dwarfs") == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["sound"] is False
    assert facts["faults"][0]["section"] == "HISTORY"


def test_extract_writes_the_tree(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command("extract", images / "made/tiny.dwarfs", "-o", out) == 0
    assert (out / "bin/hello").read_text() == "hello, dwarfs!\n"
    with pytest.raises(ClientError, match="Not a directory") as caught:
        command("extract", images / "made/tiny.dwarfs", "-o", out / "a.txt")
    assert caught.value.code == 1


@pytest.mark.parametrize("words", [["info"], ["list"], ["check"], ["extract", "-o", "/nowhere"]])
def test_an_image_that_is_none_is_one_line_and_an_exit_code(
    tmp_path: Path, words: list[str]
) -> None:
    path = tmp_path / "text"
    path.write_text("no image\n" * 100)
    with pytest.raises(ClientError) as caught:
        command(*words, path)
    assert caught.value.code == 1
    assert str(caught.value) == f"{path}: no DwarFS image found"
    with pytest.raises(ClientError, match="No such file or directory"):
        command(*words, tmp_path / "missing")


def test_mount_returns_when_the_tree_is_there(images: Path, tmp_path: Path) -> None:
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no FUSE here")
    code = (
        "import sys, argparse; from fimctl.commands import dwarfs;"
        "parser = argparse.ArgumentParser(); dwarfs.add_parser(parser.add_subparsers());"
        "parsed = parser.parse_args(sys.argv[1:]); sys.exit(parsed.func(parsed))"
    )
    mount = [sys.executable, "-c", code, "dwarfs", "mount", str(images / "made/tiny.dwarfs")]
    root = Path(__file__).parents[2]
    subprocess.run([*mount, str(tmp_path)], check=True, timeout=60, cwd=root, capture_output=True)
    try:
        assert (tmp_path / "a.txt").read_text() == "A" * 10
    finally:
        subprocess.run(["umount", tmp_path], check=True, timeout=60)
    failed = subprocess.run(
        [*mount, str(tmp_path / "missing")],
        check=False,
        timeout=60,
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 1
