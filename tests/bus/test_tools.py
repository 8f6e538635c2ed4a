"""The daemon, driven by the tools that every desktop has, as docs/dbus.md says."""

import re
import time
from pathlib import Path

import pytest

from tests.support.session import Session, byte_by_byte, wait_for

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dbus.md"
NAME, ROOT = "org.flatimage.Fim1", "/org/flatimage/Fim1"


@pytest.fixture
def scripts(session: Session) -> dict[str, Path]:
    """The scripts of the page, ready to be run."""
    found = {}
    for text in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL):
        name = text.splitlines()[1].split()[1].rstrip(":")
        path = session.directory / "bin" / f"by-dbus-{name}"
        path.write_text(text)
        path.chmod(0o755)
        found[name] = path
    return found


def test_the_page_starts_a_program_and_ends_it(
    session: Session, image: Path, scripts: dict[str, Path]
) -> None:
    done = session.run(scripts["start"], image, "sh", "-c", 'echo "in $FIM_PID: $*"', "-", "a  b")
    assert (done.returncode, done.stdout.split(":")[1]) == (0, " a  b\n"), done
    assert session.run(scripts["start"], image, "sh", "-c", "exit 7").returncode == 7
    running = session.start(scripts["start"], image, "sleep", "60")
    session.instances_of(running)
    path = f"{ROOT}/instance/{running.pid:010d}"
    began = time.monotonic()
    session.output(scripts["stop"], path)
    assert running.wait(60) != 0
    assert time.monotonic() - began < 8
    session.wait_until_clean()


def test_a_program_that_starts_while_its_end_is_asked_for_ends(
    session: Session, image: Path, scripts: dict[str, Path]
) -> None:
    text = scripts["start"].read_text()
    script = session.directory / "bin" / "by-dbus-slowly"
    script.write_text(text.replace("exec env", "sleep 60 || true; exec env"))
    script.chmod(0o755)
    running = session.start(script, image, "sleep", "60")
    path = f"{ROOT}/instance/{running.pid:010d}"
    session.instances_of(running)
    wait_for(lambda: "sleep 60 " in session.processes().values(), what="the script's last child")
    began = time.monotonic()
    session.output(scripts["stop"], path)
    assert running.wait(60) != 0
    assert time.monotonic() - began < 2.5  # before the 3 s after which it would be killed
    session.wait_until_clean()


def test_the_page_launches(session: Session, image: Path, scripts: dict[str, Path]) -> None:
    session.output("fimctl", "boot", "set", image, "sleep", "60")
    assert session.output(scripts["launch"], image) == "()\n"
    [instance] = session.objects("ps")
    assert instance["Mode"] == "boot"
    session.output(scripts["stop"], f"{ROOT}/instance/{instance['Pid']:010d}")
    session.wait_until_clean()


def test_the_page_commits(session: Session, image: Path, scripts: dict[str, Path]) -> None:
    session.output(image, "fim-root", "sh", "-c", "echo kept > /kept")
    before = image.stat().st_size
    said = session.output(scripts["commit"], image)
    assert said.splitlines()[0] == "succeeded"
    assert "'offset'" in said
    assert image.stat().st_size > before
    moved = session.directory / "work" / "moved.flatimage"
    image.rename(moved)
    assert session.output(moved, "fim-exec", "cat", "/kept") == "kept\n"


def test_a_start_that_fails_says_why(session: Session, scripts: dict[str, Path]) -> None:
    done = session.run(scripts["start"], "/etc/hostname", "true")
    assert done.returncode == 125
    assert "/etc/hostname" in done.stderr
    assert "Traceback" not in done.stderr


def test_busctl_reads_properties_and_the_tree(session: Session, image: Path) -> None:
    running = session.background(image, "sleep 30")
    tree = session.output("busctl", "--user", "--list", "tree", NAME).split()
    assert f"{ROOT}/instance/{running.pid:010d}" in tree
    assert sum(path.startswith(f"{ROOT}/layer/") for path in tree) == 1
    [layer] = [path for path in tree if path.startswith(f"{ROOT}/layer/")]
    read = ("busctl", "--user", "get-property", NAME, layer, f"{NAME}.Layer", "References")
    assert session.output(*read) == "u 1\n"
    table = session.output("busctl", "--user", "introspect", NAME, layer)
    for member in (".References", ".MountPoint", ".State"):
        assert member in table


def test_dbus_send_reads_everything(session: Session, image: Path) -> None:
    running = session.background(image, "sleep 30")
    ask = ("dbus-send", "--session", "--print-reply", f"--dest={NAME}", ROOT)
    objects = session.output(*ask, "org.freedesktop.DBus.ObjectManager.GetManagedObjects")
    assert f"{ROOT}/instance/{running.pid:010d}" in objects
    version = session.output(
        *ask, "org.freedesktop.DBus.Properties.Get", f"string:{NAME}.Manager", "string:Version"
    )
    assert re.search(r'variant +string "\d+\.\d+', version)
    refused = session.run(*ask, f"{NAME}.Manager.OpenImage", "string:/etc/hostname")
    assert refused.returncode == 1
    assert "org.freedesktop.DBus.Error.InvalidArgs: OpenImage takes (aya{sv})" in refused.stderr


def test_gdbus_sees_instances_come_and_go(session: Session, image: Path) -> None:
    session.output("fimctl", "status")
    log = session.directory / "work" / "signals"
    with log.open("wb") as file:
        monitor = session.start("gdbus", "monitor", "--session", "--dest", NAME, stdout=file)
    wait_for(lambda: "is owned by" in log.read_text(), what="the monitor")
    session.output(image, "fim-exec", "true")

    def seen(signal: str) -> bool:
        pattern = rf"{ROOT}: org\.freedesktop\.DBus\.ObjectManager\.{signal} .*{ROOT}/instance/"
        return re.search(pattern, log.read_text()) is not None

    wait_for(lambda: seen("InterfacesAdded") and seen("InterfacesRemoved"), what="the signals")
    monitor.terminate()


def test_gdbus_shows_an_errors_name_and_sentence(session: Session) -> None:
    call = ("gdbus", "call", "--session", "-d", NAME, "-o", ROOT, "-m", f"{NAME}.Manager.OpenImage")
    path = byte_by_byte("/nowhere")
    done = session.run(*call, path, "{}")
    assert done.returncode == 1
    assert f"GDBus.Error:{NAME}.Error.NotFound: " in done.stderr
    assert "/nowhere" in done.stderr
    done = session.run(*call, path, "{'typo': <true>}")
    assert f"{NAME}.Error.InvalidArgument: there is no option 'typo' here" in done.stderr
