"""Whatever an image says of itself is a text: nothing that a terminal or a desktop obeys."""

import configparser
import fnmatch
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fimd.flatimage.file import open_image
from fimd.flatimage.layout import find_layout
from fimd.flatimage.settings import encode_json
from tests.support.session import Session, wait_for

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\x7f"
OBEYED = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029\u202e]|\x1b(?!\[\d*m)"
)
NAMES = ("a;x-b", "a\\nExec=evil", "%U %c", "&<evil>\"'", "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe")
CATEGORIES = ("Game\nExec=evil", "X;Y", "Utility", "\x1b[2J", "Ga\\nExec=evil")


def store(image: Path, name: str, categories: tuple[str, ...]) -> None:
    """Store what no command of ours would, as whoever makes an image can."""
    facts = {"name": name, "categories": list(categories), "integrations": ["ENTRY", "MIMETYPE"]}
    with open_image(str(image), writable=True) as descriptor:
        offset = find_layout(descriptor).reserved_offset
        os.pwrite(descriptor, encode_json(facts) + b"\0", offset + 11)


def on_terminal(session: Session, *words: str | Path) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = session.start(*words, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    said = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:
            break
        if not data:
            break
        said += data
    os.close(ours)
    process.wait(60)
    return said.decode(errors="surrogateescape")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_more_than_a_name_in_the_desktops_files(
    session: Session, image: Path, name: str
) -> None:
    store(image, name, CATEGORIES)
    share = session.directory / "home" / ".local" / "share"
    done = session.run(image, "fim-exec", "true")
    assert done.returncode == 0, done
    session.run("fimctl", "desktop", "install", image)
    entries = list((share / "applications").iterdir())
    assert entries
    for path in entries:
        parser = configparser.RawConfigParser(strict=True, delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read(path)
        assert parser.sections() == ["Desktop Entry"]
        facts: Any = parser["Desktop Entry"]
        assert facts["Exec"] == f'"{image}" %F'
        assert facts.get("MimeType", "").count(";") <= 1
        assert "Utility;" in facts["Categories"]
        assert "\n" not in facts["Categories"]
        assert not OBEYED.search(path.read_text())
    for path in (share / "mime" / "packages").iterdir():
        assert not OBEYED.search(path.read_text())
        ET.parse(path)
    assert {path.parent for path in share.rglob("*flatimage*")} <= {
        path for path in share.rglob("*") if path.is_dir()
    } | {share}


@pytest.mark.parametrize("name", ["*.txt", "[a-z]*", "a\nb<x>", "?"])
def test_the_name_of_a_file_is_a_pattern_of_itself(
    session: Session, busybox_image: Path, name: str
) -> None:
    image = session.adopt(busybox_image, name)
    store(image, "app", ())
    assert session.run(image, "fim-exec", "true").returncode == 0
    [own] = (session.directory / "home/.local/share/mime/packages").glob("flatimage-*.xml")
    [glob] = [
        element.attrib["pattern"]
        for element in ET.parse(own).iter()
        if element.tag.endswith("glob")
    ]
    assert not fnmatch.fnmatchcase("letter.txt", glob)
    assert not fnmatch.fnmatchcase("b", glob)
    assert "\n" in name or fnmatch.fnmatchcase(name, glob)


def test_what_an_image_says_does_not_reach_a_terminal_as_it_is(
    session: Session, image: Path, busybox_image: Path
) -> None:
    strange = session.adopt(busybox_image, f"a{ESCAPES}\n.flatimage")
    session.output(strange, "fim-env", "set", f"X={ESCAPES}", f"Y{ESCAPES}=1")
    session.output(strange, "fim-bind", "add", "ro", f"/tmp/{ESCAPES}$(x)", "/x")
    session.output(strange, "fim-boot", "set", f"sh{ESCAPES}", "-c", "true")
    session.output(strange, "fim-remote", "set", f"http://{ESCAPES}")
    layers = strange.parent / f".{strange.name}.data" / "layers"
    session.run(strange, "fim-exec", "true")
    bad = layers / f"bad{ESCAPES}"
    bad.write_text("no layer")
    store(strange, "plain", ())
    keeper = session.background(strange, "sleep 60")
    commands: list[tuple[str | Path, ...]] = [
        *((strange, "fim-env", "list"), (strange, "fim-bind", "list")),
        *((strange, "fim-boot", "show"), (strange, "fim-remote", "show")),
        *((strange, "fim-layer", "list"), (strange, "fim-exec", "true")),
        *(("fimctl", word) for word in ("images", "ps", "layers", "status", "doctor", "logs")),
        *(("fimctl", word, "--json") for word in ("images", "ps", "layers", "logs")),
        *(("fimctl", "stack", strange), ("fimctl", "run", strange), ("fimctl", "logs", strange)),
        *(("fimctl", "desktop", "list"), ("fimctl", "desktop", "list", "--json")),
        *(("fimctl", "run", f"{strange}.none"), ("fimctl", "layer", "list", strange)),
        *(("fimctl", "env", "del", strange, f"A{ESCAPES}"), (strange, f"fim-{ESCAPES}")),
        *(("fimctl", "desktop", "install", strange), ("fimctl", "desktop", "uninstall", strange)),
    ]
    for command in commands:
        said = on_terminal(session, *command)
        assert not OBEYED.search(said.replace("\r\n", "\n")), (command, said)
    keeper.kill()
    wait_for(lambda: session.objects("ps") == [], what="the end of the instance")
    lines = (session.directory / "log").read_text(errors="surrogateescape").splitlines(True)
    assert not OBEYED.search("".join(line for line in lines if "dbus-daemon" not in line))


def test_launchers_by_dbus_get_names_of_one_line(session: Session, busybox_image: Path) -> None:
    strange = session.adopt(busybox_image, f"a{ESCAPES}\nb.flatimage")
    session.output(strange, "fim-exec", "true")
    said = session.output(
        *("gdbus", "call", "--session", "--dest", "org.flatimage.Fim1"),
        *("--object-path", "/org/flatimage/Fim1/Runner"),
        *("--method", "org.kde.krunner1.Match", "title"),
    ).replace("\\\\", "")
    assert "title" in said
    assert not {escape for escape in ("\\n", "\\x", "\\u", "\\a") if escape in said}


def test_a_programs_streams_are_its_own(session: Session, image: Path) -> None:
    """What the program itself writes is not looked at."""
    assert session.output(image, "fim-exec", "printf", "\\033[1m") == "\x1b[1m"
