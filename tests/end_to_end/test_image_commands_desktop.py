"""An image in the desktop's menu: what is stored, written at a start, dumped and removed."""

import base64
import json
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support.image_commands import Commands, texts
from tests.support.session import Session, wait_for

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>\n'
SIZES = (16, 22, 24, 32, 48, 64, 96, 128, 256)
OWN_TYPE = """\
<?xml version="1.0" encoding="UTF-8"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
  <mime-type type="application/flatimage_My App">
    <comment>FlatImage Application</comment>
    <glob weight="100" pattern="app.flatimage"/>
    <sub-class-of type="application/x-executable"/>
    <generic-icon name="application-flatimage"/>
  </mime-type>
</mime-info>"""
GENERIC_TYPE = """\
<?xml version="1.0" encoding="UTF-8"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
  <mime-type type="application/flatimage">
    <comment>FlatImage Application</comment>
    <magic>
      <match value="ELF" type="string" offset="1">
        <match value="0x46" type="byte" offset="8">
          <match value="0x49" type="byte" offset="9">
            <match value="0x01" type="byte" offset="10"/>
          </match>
        </match>
      </match>
    </magic>
    <glob weight="50" pattern="*.flatimage"/>
    <sub-class-of type="application/x-executable"/>
    <generic-icon name="application-flatimage"/>
  </mime-type>
</mime-info>
"""


@pytest.fixture
def app(session: Session, image: Path) -> Commands:
    return Commands(session, image)


def share(app: Commands) -> Path:
    return app.session.directory / "home" / ".local" / "share"


def setup_file(app: Commands, content: bytes = PNG, ending: str = "png", **values: Any) -> str:
    work = app.session.directory / "work"
    picture = work / f"picture.{ending}"
    picture.write_bytes(content)
    described = {"name": "My App", "icon": str(picture), "categories": ["Game", "Audio"], **values}
    path = work / "desktop.json"
    path.write_text(json.dumps(described))
    return str(path)


def icons(app: Commands) -> set[str]:
    theme = share(app) / "icons" / "hicolor"
    return {str(path.relative_to(theme)) for path in theme.rglob("*") if path.is_file()}


def test_setup_stores_and_prints_what_the_file_says(app: Commands) -> None:
    path = setup_file(app, integrations=["icon", "ENTRY"])
    stored = '{\n  "categories": [\n    "Audio",\n    "Game"\n  ],\n  "integrations": [\n'
    stored += '    "ENTRY",\n    "ICON"\n  ],\n  "name": "My App"\n}\n'
    assert app.output("fim-desktop", "setup", path) == stored
    variables = {"FIM_DEBUG": "1"}
    assert stored in app.session.output(
        app.image, "fim-desktop", "setup", path, variables=variables
    )
    target = app.session.directory / "work" / "saved"
    app.silent("fim-desktop", "dump", "icon", str(target))
    assert target.with_suffix(".png").read_bytes() == PNG
    assert app.output("fim-desktop", "enable", "mimetype,Entry") == "ENTRY\nMIMETYPE\n"
    assert app.output("fim-desktop", "enable", "none") == "NONE\n"
    app.silent("fim-exec", "true")
    assert not share(app).exists()


def test_a_start_writes_what_is_enabled_and_clean_removes_it(app: Commands) -> None:
    app.output("fim-desktop", "setup", setup_file(app))
    app.silent("fim-exec", "true")
    entry = share(app) / "applications" / "flatimage-My App.desktop"
    assert entry.read_text() == "\n".join(
        (
            "[Desktop Entry]",
            "Name=My App",
            "Type=Application",
            'Comment=FlatImage distribution of "My App"',
            f'Exec="{app.image}" %F',
            "Icon=flatimage_My App",
            "MimeType=application/flatimage_My App;",
            "Categories=Audio;Game;",
        )
    )
    assert app.output("fim-desktop", "dump", "entry") == entry.read_text() + "\n"
    packages = share(app) / "mime" / "packages"
    own = packages / "flatimage-My App.xml"
    assert own.read_text() == OWN_TYPE
    assert app.output("fim-desktop", "dump", "mimetype") == OWN_TYPE + "\n"
    assert (packages / "flatimage.xml").read_text() == GENERIC_TYPE
    for text in (OWN_TYPE, GENERIC_TYPE):
        ET.fromstring(text)
    generic = {"scalable/apps/flatimage.svg", "scalable/mimetypes/application-flatimage.svg"}
    of_image = {
        path
        for size in SIZES
        for path in (
            f"{size}x{size}/apps/flatimage_My App.png",
            f"{size}x{size}/mimetypes/application-flatimage_My App.png",
        )
    }
    assert icons(app) == generic | of_image

    entry.write_text("changed")
    app.silent("fim-root", "true")
    assert entry.read_text() != "changed"
    said = app.said("fim-desktop", "clean")
    assert f"Removed file '{entry}'" in said
    assert f"Removed file '{own}'" in said
    assert "Updating mime database" in said
    assert not entry.exists()
    assert not own.exists()
    assert (packages / "flatimage.xml").exists()
    assert icons(app) == generic
    assert f"Removed file '{entry}'" in app.said("fim-desktop", "clean")
    assert "My App" in app.output("fim-desktop", "dump", "entry")


def test_an_svg_is_one_scalable_icon(app: Commands) -> None:
    app.output("fim-desktop", "setup", setup_file(app, SVG, "svg"))
    app.session.run(app.image, "-c", "true")
    assert "scalable/apps/flatimage_My App.svg" in icons(app)
    assert not any(path.endswith(".png") for path in icons(app))


def test_a_jpg_can_be_dumped_and_cleaned_too(app: Commands) -> None:
    jpg = b"\xff\xd8\xff\xe0 not much of a picture"
    for ending in ("jpg", "jpeg"):
        app.output("fim-desktop", "setup", setup_file(app, jpg, ending))
        target = app.session.directory / "work" / f"saved-{ending}.jpg"
        app.silent("fim-desktop", "dump", "icon", str(target))
        assert target.read_bytes() == jpg
    app.silent("fim-exec", "true")
    assert "48x48/apps/flatimage_My App.png" in icons(app)
    app.said("fim-desktop", "clean")
    assert not any("My App" in path for path in icons(app))


def test_an_icon_may_come_from_the_web(app: Commands) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/icon.png" else 404)
            self.end_headers()
            self.wfile.write(PNG)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        app.output("fim-desktop", "setup", setup_file(app, icon=f"{address}/icon.png"))
        path = setup_file(app, icon=f"{address}/missing.png")
        assert "404" in app.refused("fim-desktop", "setup", path)[0]
        server.shutdown()
    target = app.session.directory / "work" / "saved.png"
    app.silent("fim-desktop", "dump", "icon", str(target))
    assert target.read_bytes() == PNG


def test_a_database_that_cannot_be_updated_is_no_failure(app: Commands) -> None:
    program = app.session.directory / "bin" / "update-mime-database"
    program.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    program.chmod(0o755)
    app.output("fim-desktop", "setup", setup_file(app))
    app.silent("fim-exec", "true")
    assert "Updating mime database" in app.said("fim-desktop", "clean")


def test_the_database_of_types_is_updated_once_a_file_name(app: Commands) -> None:
    app.output("fim-desktop", "setup", setup_file(app))

    def debugged(image: Path) -> list[str]:
        variables = {"FIM_DEBUG": "1"}
        return texts(app.session.output(image, "fim-exec", "true", variables=variables))

    updating = f"Updating mime database '{share(app)}/mime'"
    skipping = "Skipping mime database update"
    assert updating in debugged(app.image)
    assert skipping in debugged(app.image)
    other = app.session.adopt(app.image, "other.flatimage")
    assert updating in debugged(other)


def test_a_data_home_that_cannot_be_written_keeps_nothing_from_starting(app: Commands) -> None:
    app.output("fim-desktop", "setup", setup_file(app))
    variables = {"XDG_DATA_HOME": "/proc/nowhere"}
    assert app.session.output(app.image, "fim-exec", "echo", "up", variables=variables) == "up\n"


def test_a_start_is_told_where_that_is_wanted(app: Commands) -> None:
    told = app.session.directory / "work" / "told"
    program = app.session.directory / "bin" / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "[%s]" "$@" >{told}.new; mv {told}.new {told}\n')
    program.chmod(0o755)
    app.silent("fim-notify", "on")
    app.silent("fim-exec", "true")
    assert not told.exists()
    app.output("fim-desktop", "setup", setup_file(app))
    app.silent("fim-exec", "true")
    wait_for(told.exists, what="the notification")
    assert told.read_text().endswith("[Started 'My App' FlatImage]")


def test_a_wrong_setup_is_refused(app: Commands) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "a/b"}, "Application name cannot contain the '/' character"),
        ({"name": "a\nb"}, "Application name cannot be empty or contain control characters"),
        ({"integrations": ["FOO"]}, "Failed to deserialize json"),
        ({"name": 5}, "Failed to deserialize json"),
        ({"categories": "Game"}, "Failed to deserialize json"),
        (
            {"icon": "/no/icon.png"},
            "Could not get size of file '/no/icon.png': No such file or directory",
        ),
        ({"icon": "/etc/passwd"}, "Icon extension '' is not supported"),
    ]
    for values, said in cases:
        path = setup_file(app, **values)
        assert app.refused("fim-desktop", "setup", path)[0] == said
    assert app.refused("fim-desktop", "dump", "entry")[0] == "Empty json data"


def test_a_picture_that_is_too_large(app: Commands) -> None:
    path = setup_file(app, bytes((1 << 20) - 11))
    said = app.refused("fim-desktop", "setup", path)
    assert said[0] == f"File is too large, '{(1 << 20) - 11}' bytes"
    app.output("fim-desktop", "setup", setup_file(app, bytes((1 << 20) - 12)))


def test_wrong_words(app: Commands) -> None:
    cases: list[tuple[list[str], str]] = [
        ([], "Missing op for 'fim-desktop' (enable,setup,clean,dump)"),
        (["setup"], "Missing argument for 'setup' (/path/to/file.json)"),
        (["setup", "a", "b"], "Trailing arguments for fim-desktop: ['b',]"),
        (["enable"], "Missing arguments for 'enable' (entry,mimetype,icon,none)"),
        (["enable", "foo"], "Invalid integration item"),
        (["enable", "none,entry"], "'none' option should not be used with others"),
        (["enable", "entry", "x"], "Trailing arguments for fim-desktop: ['x',]"),
        (["clean", "x"], "Trailing arguments for fim-desktop: ['x',]"),
        (["dump", "entry", "x"], "Trailing arguments for fim-desktop: ['x',]"),
        (["dump", "icon", "x", "y"], "Trailing arguments for fim-desktop: ['y',]"),
    ]
    for words, said in cases:
        assert app.wrong("fim-desktop", *words) == [said]


def test_an_image_that_is_not_set_up(app: Commands) -> None:
    for words in (["dump", "entry"], ["dump", "mimetype"], ["clean"], ["enable", "entry"]):
        assert app.refused("fim-desktop", *words)[0] == "Empty json data"
    assert app.refused("fim-desktop", "dump", "icon", "x")[0] == "Empty icon data"
    path = str(app.session.directory / "missing.json")
    said = app.refused("fim-desktop", "setup", path)
    assert said[0] == f"Failed to open file '{path}' for desktop integration"
