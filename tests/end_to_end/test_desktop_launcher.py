"""`fimctl desktop install`: a launcher in the menu, which starts its image by the bus alone."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.desktop import PNG, set_up
from tests.support.session import Session, wait_for


def share(session: Session) -> Path:
    return session.directory / "home" / ".local" / "share"


def entries(session: Session) -> list[Path]:
    return sorted((share(session) / "applications").glob("*.desktop"))


def activations(session: Session) -> list[Path]:
    return sorted((share(session) / "dbus-1" / "services").glob("*.App.*.service"))


def check_valid(*files: Path) -> None:
    """Have the reference program read desktop entries, where it is installed."""
    if shutil.which("desktop-file-validate") is None:
        pytest.skip("desktop-file-utils is not installed")
    done = subprocess.run(
        ["desktop-file-validate", *files], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def leave(session: Session) -> None:
    session.output("fimctl", "shutdown")
    wait_for(lambda: not session.daemons(), what="the daemon's end")


def with_launchers(session: Session) -> None:
    """Let the session's bus see the activation files of launchers."""
    directory = share(session) / "dbus-1" / "services"
    config = session.directory / "bus.conf"
    marker = "<servicedir>"
    text = config.read_text()
    config.write_text(text.replace(marker, f"<servicedir>{directory}</servicedir>{marker}", 1))


def test_a_launcher_starts_its_image_by_the_bus_alone(session: Session, image: Path) -> None:
    with_launchers(session)
    set_up(session, image, 'My "App" 100%\\', categories=["Audio"])
    mark = session.directory / "work" / "mark"
    script = f'echo "$@" > {mark}; sleep 30'
    session.output("fimctl", "boot", "set", image, "sh", "-c", script, "boot")
    said = session.output("fimctl", "desktop", "install", image)
    [entry], [activation] = entries(session), activations(session)
    assert said.splitlines() == [
        f"wrote {share(session)}/mime/packages/flatimage.xml",
        f"wrote {activation}",
        f"wrote {entry}",
    ]
    check_valid(entry)
    assert entry.stem == activation.stem
    lines = entry.read_text().splitlines()
    assert 'Name=My "App" 100%\\\\' in lines
    assert "DBusActivatable=true" in lines
    assert "Categories=AudioVideo;Audio;" in lines
    icon = 'apps/flatimage_My "App" 100%\\.png'
    assert (share(session) / "icons/hicolor/64x64" / icon).read_bytes() == PNG
    [listed] = json.loads(session.output("fimctl", "desktop", "list", "--json"))
    assert (listed["Registered"], listed["Uses"], listed["Running"]) == (True, 0, 0)

    leave(session)
    where = ("-d", entry.stem, "-o", "/" + entry.stem.replace(".", "/"))
    method = "org.freedesktop.Application"
    call = ("gdbus", "call", "--session", *where, "-m")
    assert session.output(*call, f"{method}.Activate", "@a{sv} {}") == "()\n"
    wait_for(lambda: mark.exists() and mark.read_text() == "\n", what="the program")
    session.output(*call, f"{method}.Open", "['file:///etc/host%20name', 'file:///b']", "@a{sv} {}")
    wait_for(lambda: mark.read_text() == "/etc/host name /b\n", what="the program with files")
    [listed] = json.loads(session.output("fimctl", "desktop", "list", "--json"))
    assert (listed["Uses"], listed["Running"]) == (2, 2)

    said = session.output("fimctl", "desktop", "uninstall", image)
    assert said.splitlines() == [f"removed {entry}", f"removed {activation}"]
    assert entries(session) == activations(session) == []
    assert not list(share(session).rglob("*My *"))
    [listed] = json.loads(session.output("fimctl", "desktop", "list", "--json"))
    assert (listed["Uses"], listed["Registered"]) == (2, False)
    gone = session.run(*call, f"{method}.Activate", "@a{sv} {}")
    assert gone.returncode != 0
    for instance in session.objects("ps"):
        session.output("fimctl", "stop", str(instance["Pid"]))


def test_an_image_that_says_nothing_of_itself_gets_a_terminal(
    session: Session, image: Path
) -> None:
    odd = image.rename(image.with_name("odd $name; é.flatimage"))
    session.output("fimctl", "desktop", "install", odd)
    [entry] = entries(session)
    check_valid(entry)
    text = entry.read_text()
    assert "\nName=odd $name; é\n" in text
    assert "\nTerminal=true\n" in text
    assert "\nIcon=flatimage\n" in text
    assert activations(session) == []
    assert (share(session) / "icons/hicolor/scalable/apps/flatimage.svg").exists()
    odd.unlink()
    assert session.output("fimctl", "desktop", "uninstall", odd) == f"removed {entry}\n"
    done = session.run("fimctl", "desktop", "uninstall", odd)
    assert done.returncode == 125
    assert "is not among the images" in done.stderr


def test_there_is_one_entry_in_the_menu_whoever_writes_it(session: Session, image: Path) -> None:
    set_up(session, image, "App", integrations=["ENTRY"])
    session.output("fimctl", "boot", "set", image, "true")
    session.output(image, "fim-exec", "true")
    [by_start] = entries(session)
    session.output("fimctl", "desktop", "install", image)
    [by_install] = entries(session)
    assert by_install != by_start
    session.output(image, "fim-exec", "true")
    assert entries(session) == [by_install]
    session.output("fimctl", "desktop", "uninstall", image)
    session.output(image, "fim-exec", "true")
    assert entries(session) == [by_start]


def test_what_is_no_image_gets_no_launcher(session: Session) -> None:
    done = session.run("fimctl", "desktop", "install", "/etc/hostname")
    assert done.returncode == 125
    assert "/etc/hostname" in done.stderr
    assert not share(session).exists()


def test_setup_lets_desktops_find_images(session: Session, image: Path) -> None:
    session.output("fimctl", "setup")
    files = {
        str(path.relative_to(share(session)))
        for path in share(session).rglob("*")
        if path.is_file() and "FlatImage" in path.read_text(errors="replace")
    }
    assert {
        "applications/org.flatimage.Fim1.desktop",
        "krunner/dbusplugins/org.flatimage.Fim1.desktop",
        "mime/packages/flatimage.xml",
    } <= files
    check_valid(
        share(session) / "applications/org.flatimage.Fim1.desktop",
        share(session) / "krunner/dbusplugins/org.flatimage.Fim1.desktop",
    )
    provider = share(session) / "gnome-shell/search-providers"
    [line] = [
        line.removeprefix("ObjectPath=")
        for path in provider.iterdir()
        for line in path.read_text().splitlines()
        if line.startswith("ObjectPath=")
    ]
    shown = session.output("busctl", "--user", "introspect", "org.flatimage.Fim1", line)
    assert "org.gnome.Shell.SearchProvider2" in shown
    if shutil.which("update-mime-database") and shutil.which("xdg-mime"):
        kind = session.output("xdg-mime", "query", "filetype", image)
        assert kind == "application/flatimage\n"
    assert (share(session) / "man/man1/fimctl.1").is_file()
    session.output("fimctl", "setup", "--remove")
    assert not list(share(session).rglob("fimctl.1"))
    assert not list(share(session).rglob("*org.flatimage.Fim1*"))
