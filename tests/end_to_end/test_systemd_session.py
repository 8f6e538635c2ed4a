"""The daemon as a unit of a real user's systemd: activation, restart, watchdog, reload, logout."""

import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import Account
from tests.support.session import wait_for
from tests.support.systemd_session import SystemdSession, hindrance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

UNIT = "fimd.service"


@pytest.fixture
def session(plain_account: Account, open_directory: Path) -> Iterator[SystemdSession]:
    reason = hindrance()
    if reason is not None:
        pytest.skip(reason)
    if plain_account.environment:
        pytest.skip("a plain user can't execute this environment")
    if not os.access("/dev/fuse", os.R_OK) or not os.stat("/dev/fuse").st_mode & stat.S_IROTH:
        pytest.skip("/dev/fuse is closed to plain users")
    directory = Path(tempfile.mkdtemp(dir=open_directory))
    directory.chmod(0o755)
    os.chown(directory, plain_account.uid, plain_account.gid)
    with SystemdSession(directory, plain_account) as session:
        session.output(Path(sys.executable).parent / "fimctl", "setup")
        yield session
    assert session.mounts() == []


@pytest.fixture
def image(session: SystemdSession, busybox_image: Path) -> Path:
    target = session.directory / "work" / "app.flatimage"
    shutil.copy(busybox_image, target)
    os.chown(target, session.account.uid, session.account.gid)
    return target


def begin(session: SystemdSession, image: Path, count: int) -> list[str]:
    """Start programs as units of the session, and wait until they run."""
    names = [f"app-test-{number}.service" for number in range(count)]
    for name in names:
        command = ("systemd-run", "--user", f"--unit={name}", "--collect", "--quiet")
        path = f"--setenv=PATH={session.environment['PATH']}"
        session.output(*command, path, image, "fim-exec", "sleep", "300")
    wait_for(lambda: len(instances(session)) == count, 30, "the instances")
    return names


def instances(session: SystemdSession) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(session.output("fimctl", "ps", "--json"))
    return found


def main_pid(session: SystemdSession) -> int:
    return int(session.unit(UNIT, "MainPID")[0])


def test_setup_says_what_it_wrote_and_removes_it_again(session: SystemdSession) -> None:
    share = session.directory / "home" / ".local" / "share"
    files = [
        share / "dbus-1" / "services" / "org.flatimage.Fim1.service",
        share / "systemd" / "user" / "fimd.service",
        share / "systemd" / "user" / "fimd.slice",
        share / "applications" / "org.flatimage.Fim1.desktop",
        share / "gnome-shell/search-providers" / "org.flatimage.Fim1.search-provider.ini",
        share / "krunner" / "dbusplugins" / "org.flatimage.Fim1.desktop",
        share / "mime" / "packages" / "flatimage.xml",
    ]
    assert session.output("fimctl", "setup").splitlines() == [f"kept {path}" for path in files]
    said = session.output("systemd-analyze", "--user", "--man=no", "verify", str(files[1]))
    assert said == ""
    assert session.output("fimctl", "setup", "--remove").splitlines() == [
        f"removed {path}" for path in files
    ]
    assert not any(path.exists() for path in files)
    assert session.output("fimctl", "setup", "--remove") == "nothing was installed\n"


def test_the_first_call_starts_the_unit(session: SystemdSession) -> None:
    assert session.unit(UNIT, "LoadState", "ActiveState") == ["loaded", "inactive"]
    session.output("fimctl", "status")
    active, status = session.unit(UNIT, "ActiveState", "StatusText")
    assert (active, status) == ("active", "0 instances, 0 layers, 0 mounts")
    assert json.loads(session.output("fimctl", "doctor", "--json"))["session"][2]["detail"] == (
        "fimd.service is active"
    )


def test_a_daemon_that_refuses_to_start_says_why_at_once(
    session: SystemdSession, image: Path
) -> None:
    session.output("fimctl", "boot", "set", image, "true")
    session.output("fimctl", "desktop", "install", image)
    [entry] = (session.directory / "home/.local/share/applications").glob("*.App.*.desktop")
    session.output("fimctl", "shutdown")
    wait_for(lambda: session.unit(UNIT, "ActiveState") == ["inactive"], what="its end")
    file = session.directory / "home/.config/fimd/fimd.toml"
    file.parent.mkdir(parents=True)
    file.write_text("cash = 1\n")
    for _ in range(4):
        began = time.monotonic()
        done = session.run("fimctl", "status")
        assert time.monotonic() - began < 6
        assert done.returncode == 125
        assert done.stderr.startswith(f"fimctl: {file}: there is no setting 'cash': ")
    wait_for(
        lambda: session.unit(UNIT, "ActiveState", "NRestarts") == ["failed", "0"],
        what="the end of the unit",
    )
    launcher = ("-d", entry.stem, "-o", f"/{entry.stem.replace('.', '/')}")
    activate = ("-m", "org.freedesktop.Application.Activate", "@a{sv} {}")
    done = session.run("gdbus", "call", "--session", "--timeout=6", *launcher, *activate)
    assert "there is no setting 'cash'" in done.stderr
    wait_for(lambda: session.unit(UNIT, "ActiveState") == ["failed"], what="the end of the unit")
    file.unlink()
    session.output("systemctl", "--user", "reset-failed", UNIT)
    assert session.output("gdbus", "call", "--session", *launcher, *activate) == "()\n"


def test_a_daemon_that_dies_at_once_keeps_nobody_waiting(session: SystemdSession) -> None:
    drop_in = session.directory / "home/.config/systemd/user/fimd.service.d"
    drop_in.mkdir(parents=True)
    (drop_in / "broken.conf").write_text("[Service]\nExecStart=\nExecStart=/bin/false\n")
    session.output("systemctl", "--user", "daemon-reload")
    began = time.monotonic()
    done = session.run("fimctl", "status")
    assert time.monotonic() - began < 10
    assert done.returncode == 125
    assert done.stderr.startswith("fimctl: systemd could not start fimd (exit-code): 'systemctl")


def test_mounts_live_in_scopes_and_outlive_a_kill_under_load(
    session: SystemdSession, image: Path
) -> None:
    begin(session, image, 3)
    wait_for(
        lambda: session.unit(UNIT, "StatusText") == ["3 instances, 1 layer, 2 mounts"],
        what="the status",
    )
    scopes = session.output(
        "systemctl", "--user", "list-units", "--plain", "--no-legend", "*.scope"
    )
    kinds = sorted(line.split("-")[1] for line in scopes.splitlines() if line.startswith("fimd-"))
    assert kinds == ["layer", "namespace"]
    before = {instance["Pid"] for instance in instances(session)}
    for _ in range(3):
        old = main_pid(session)
        os.kill(old, signal.SIGKILL)
        wait_for(lambda old=old: main_pid(session) not in {0, old}, 20, "the next daemon")
        assert {instance["Pid"] for instance in instances(session)} == before
    assert session.unit(UNIT, "StatusText") == ["3 instances, 1 layer, 2 mounts"]
    session.output("systemctl", "--user", "stop", "app-test-*.service")
    session.wait_until_clean()


def test_what_a_launcher_starts_is_an_application_of_its_own(
    session: SystemdSession, image: Path
) -> None:
    """It has a scope, the session's latest variables, and nothing of the daemon's end."""
    session.output("fimctl", "status")
    session.output("systemctl", "--user", "set-environment", "DISPLAY=:77", "FIMD_LINGER=1")
    mark = session.directory / "work" / "mark"
    script = f'echo "$DISPLAY $XDG_ACTIVATION_TOKEN ${{NOTIFY_SOCKET-none}}" > {mark}; sleep 300'
    session.output("fimctl", "boot", "set", image, "sh", "-c", script)
    session.output(
        *["gdbus", "call", "--session", "-d", "org.flatimage.Fim1", "-o", "/org/flatimage/Fim1"],
        *["-m", "org.freedesktop.Application.Open", f"['file://{image}']"],
        "{'activation-token': <'token-3'>}",
    )
    wait_for(lambda: mark.exists() and mark.read_text(), what="the program")
    assert mark.read_text() == ":77 token-3 none\n"
    [instance] = instances(session)
    groups = Path(f"/proc/{instance['Pid']}/cgroup").read_text()
    assert f"/app.slice/app-flatimage-app.flatimage-{instance['Pid']}.scope" in groups
    session.output("systemctl", "--user", "stop", UNIT)
    assert [one["Pid"] for one in instances(session)] == [instance["Pid"]]
    session.output("fimctl", "stop", str(instance["Pid"]))
    session.wait_until_clean()


def test_a_hanging_daemon_is_ended_and_comes_back(session: SystemdSession, image: Path) -> None:
    drop_in = session.directory / "home/.config/systemd/user/fimd.service.d"
    drop_in.mkdir(parents=True)
    (drop_in / "soon.conf").write_text("[Service]\nWatchdogSec=2\n")
    session.output("systemctl", "--user", "daemon-reload")
    begin(session, image, 1)
    [alive] = session.unit(UNIT, "WatchdogTimestampMonotonic")
    wait_for(
        lambda: session.unit(UNIT, "WatchdogTimestampMonotonic") != [alive], what="a sign of life"
    )
    old = main_pid(session)
    os.kill(old, signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: main_pid(session) not in {0, old}, 30, "the next daemon")
    assert time.monotonic() - began < 20
    assert len(instances(session)) == 1
    assert session.unit(UNIT, "NRestarts") != ["0"]


def test_reload_takes_over_settings_and_refuses_wrong_ones(session: SystemdSession) -> None:
    session.output("fimctl", "status")
    before = main_pid(session)
    file = session.directory / "home/.config/fimd/fimd.toml"
    file.parent.mkdir(parents=True)

    def reload(text: str) -> None:
        file.write_text(text)
        session.output("systemctl", "--user", "reload", UNIT)

    def level() -> dict[str, str]:
        shown = session.output(
            *["busctl", "--user", "--json=short", "get-property", "org.flatimage.Fim1"],
            *["/org/flatimage/Fim1", "org.flatimage.Fim1.Manager", "Settings"],
        )
        value: dict[str, str] = json.loads(shown)["data"]["log_level"]
        return value

    reload('log_level = "debug"\n')
    wait_for(lambda: level()["data"] == "debug", what="the setting")
    settings = json.loads(session.output("fimctl", "settings", "--json"))
    assert settings["log_level"] == {"value": "debug", "origin": str(file)}
    assert settings["linger"] == {"value": 1.0, "origin": "FIMD_LINGER"}
    reload('log_level = "loud"\n')
    wait_for(lambda: "not reloaded" in session.output("fimctl", "logs"), what="the refusal")
    assert "log_level can't be 'loud'" in session.output("fimctl", "logs")
    assert level()["data"] == "debug"
    assert session.unit(UNIT, "ActiveState") == ["active"]
    assert main_pid(session) == before


def test_logout_leaves_nothing(session: SystemdSession, image: Path) -> None:
    begin(session, image, 2)
    assert session.mounts()
    session.log_out()
    wait_for(lambda: not session.processes(), 15, "the end of all processes")
    assert session.mounts() == []
