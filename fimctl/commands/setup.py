"""`fimctl setup`: let session buses, systemd and desktops start the daemon of this installation."""

import argparse
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from fimctl import session_bus
from fimctl.connection import Connection
from fimctl.daemon import BUS_NAME, Daemon
from fimctl.desktop import icons, mime
from fimctl.errors import ClientError
from fimctl.installation import filled, programs
from fimd.base.places import data_home, find_global, socket_path

_SECONDS: Final = 10.0
_ACTIVATION: Final = {f"dbus-1/services/{BUS_NAME}.service": f"dbus/{BUS_NAME}.service.in"}
_UNITS: Final = {
    "systemd/user/fimd.service": "systemd/fimd.service.in",
    "systemd/user/fimd.slice": "systemd/fimd.slice",
    "systemd/user/fimd.socket": "systemd/fimd.socket.in",
}
_LAUNCHERS: Final = {
    f"applications/{BUS_NAME}.desktop": f"packaging/launchers/{BUS_NAME}.desktop",
    f"gnome-shell/search-providers/{BUS_NAME}.search-provider.ini": (
        f"packaging/launchers/{BUS_NAME}.search-provider.ini"
    ),
    f"krunner/dbusplugins/{BUS_NAME}.desktop": "packaging/launchers/krunner.desktop",
}
_MANUALS: Final = {
    f"man/man{page[-1]}/{page}": f"packaging/man/{page}"
    for page in ("fimctl.1", "org.flatimage.Fim1.5", "flatimage.7", "fimd.8")
}
"""Files below XDG_DATA_HOME, and what each is made of. man(1) looks there by ~/.local/bin."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "setup",
        help="let session buses, systemd and desktops start this installation's fimd",
        description="Write the files by which the session bus and systemd start fimd when it is "
        "needed, by which desktops find images, and the manual pages, and say which. Images start "
        "without; and it is not needed where a package has installed them for all users.",
    )
    parser.add_argument("--remove", action="store_true", help="remove them again")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Write or remove the files below XDG_DATA_HOME."""
    home = data_home()
    systemd = _systemctl("show", "--property=Version")
    if arguments.remove:
        if systemd:
            _systemctl("disable", "--now", "fimd.socket")
            _systemctl("stop", "fimd.service")
        installed = [Path(home) / name for name in (*_ACTIVATION, *_UNITS, *_LAUNCHERS, *_MANUALS)]
        removed = [path for path in (*installed, Path(mime.generic_path(home))) if _remove(path)]
        if not removed:
            print("nothing was installed")
    elif (everybody := _for_everybody()) is not None:
        print(f"installed for all users already: {everybody}")
    else:
        files = {**_ACTIVATION, **(_UNITS if systemd else {}), **_LAUNCHERS, **_MANUALS}
        for name, source in files.items():
            _write(Path(home) / name, filled(source))
        _write(Path(mime.generic_path(home)), mime.GENERIC)
        icons.install_generic(home)
        if not systemd:
            print("systemd runs no session of yours: fimd is started without")
    if systemd:
        _systemctl("daemon-reload")
        if not arguments.remove and not _systemctl("is-active", "fimd.socket"):
            _make_way()
            _systemctl("enable", "--now", "fimd.socket")
    mime.update_database(home)
    mime.update_handlers(home)
    _tell_bus(installed=not arguments.remove)
    return 0


def _make_way() -> None:
    """Have a daemon leave whose socket systemd's would take the place of. Its instances go on."""
    try:
        Connection.to_daemon(socket_path(find_global())).close()
    except OSError:
        return
    with Daemon() as daemon:
        daemon.manager("Shutdown", "a{sv}", ({},))


def _for_everybody() -> Path | None:
    """Return the activation file by which this installation serves all users, if it does."""
    command = f"Exec={programs()}/fimd\n"
    directories = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    for directory in directories.split(":"):
        path = Path(directory) / next(iter(_ACTIVATION))
        if path.is_file() and command in path.read_text():
            return path
    return None


def _write(target: Path, text: str) -> None:
    try:
        if target.is_file() and target.read_text() == text:
            print(f"kept {target}")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.new")
        temporary.write_text(text)
        temporary.replace(target)
    except OSError as error:
        raise ClientError(f"{target} can't be written: {error.strerror}") from error
    print(f"wrote {target}")


def _remove(target: Path) -> bool:
    try:
        target.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ClientError(f"{target} can't be removed: {error.strerror}") from error
    print(f"removed {target}")
    return True


def _systemctl(*words: str) -> bool:
    """Ask this user's systemd; False where there is none, or it refuses."""
    return shutil.which("systemctl") is not None and _succeeds("systemctl", "--user", *words)


def _tell_bus(*, installed: bool) -> None:
    """Have the bus read the activation files anew, and say so where it does not see ours."""
    for names in session_bus.reload():
        if installed and BUS_NAME not in names:
            print(
                "the session bus does not look there: log in anew; where HOME is not your home "
                "of the user database, set XDG_DATA_HOME for the whole session"
            )


def _succeeds(*command: str) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
