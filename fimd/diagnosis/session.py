"""The session bus, the daemon on it, systemd, and the settings."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

from dbus_next.message import Message

from fimd.base.errors import FimError, InvalidArgumentError
from fimd.base.places import find_global, socket_path
from fimd.base.settings import DEFAULT_ORIGIN, read
from fimd.bus.connection import BusError, Connection, session_addresses
from fimd.bus.paths import BUS_NAME, ROOT
from fimd.diagnosis.finding import Finding, fine, note, problem
from fimd.mounts.process import run

_SECONDS: Final = 3.0


async def check() -> list[Finding]:
    """Look whether the daemon can be reached, or started, and by whom."""
    findings = await asyncio.gather(_bus(), _daemon(), _systemd())
    return [*findings, _settings()]


async def _bus() -> Finding:
    """A session bus is for desktops and for other programs; images start without."""
    addresses = session_addresses()
    for address in addresses:
        try:
            connection = await Connection.open(address, seconds=_SECONDS)
        except FimError:
            continue
        try:
            [owned] = await connection.ask_bus("NameHasOwner", "s", BUS_NAME)
            [names] = await connection.ask_bus("ListActivatableNames", "")
        except BusError as error:
            return note("session bus", str(error), "log in anew, for desktops to start images")
        finally:
            connection.disconnect()
        shown = address.split(",")[0]
        if owned or BUS_NAME in names:
            return fine("session bus", shown)
        remedy = "run 'fimctl setup', for desktops to start images"
        return note("session bus", f"{shown} can't start fimd", remedy)
    if addresses:
        detail = f"{addresses[0]} does not answer, and images start without"
        return note("session bus", detail, "log in anew, for desktops to start images")
    return fine("session bus", "there is none, and images start without")


async def _daemon() -> Finding:
    path = socket_path(find_global())
    try:
        connection = await Connection.open(f"unix:path={path}", seconds=_SECONDS)
    except FimError:
        return fine("daemon", "it does not run, and is started when it is needed")
    message = Message(
        path=ROOT,
        interface="org.freedesktop.DBus.Properties",
        member="Get",
        signature="ss",
        body=[f"{BUS_NAME}.Manager", "Version"],
    )
    try:
        [version] = await connection.ask(message, seconds=_SECONDS)
    except BusError as error:
        remedy = "see 'fimctl logs', and end the process: its mounts stay"
        return problem("daemon", f"it runs, but does not answer ({error})", remedy)
    finally:
        connection.disconnect()
    return fine("daemon", f"it runs, version {version.value}")


async def _systemd() -> Finding:
    if not os.access("/run/systemd/system", os.F_OK) or shutil.which("systemctl") is None:
        return fine("systemd", "does not run here; the daemon is started without")
    words = ["systemctl", "--user", "show", "--property=LoadState,ActiveState", "fimd.service"]
    try:
        said = (await run(words, seconds=_SECONDS)).decode(errors="replace")
    except FimError:
        return fine("systemd", "runs no session of this user; the daemon is started without")
    facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if facts.get("LoadState") != "loaded":
        return note("systemd", "it has no unit fimd.service", "run 'fimctl setup'")
    state = facts.get("ActiveState", "unknown")
    if state == "failed":
        remedy = "see 'systemctl --user status fimd', then 'systemctl --user restart fimd'"
        return problem("systemd", "fimd.service has failed", remedy)
    return fine("systemd", f"fimd.service is {state}")


def _settings() -> Finding:
    try:
        values = read()
    except InvalidArgumentError as error:
        return problem("settings", str(error), "correct it: without that fimd does not start")
    changed = [
        f"{name} = {value}" for name, (value, origin) in values.items() if origin != DEFAULT_ORIGIN
    ]
    conflict = os.environ.get("FIM_DIR_GLOBAL")
    detail = ", ".join(changed) or "all defaults"
    if conflict and not Path(conflict).is_dir():
        return note("settings", f"FIM_DIR_GLOBAL={conflict} is not there", "make that directory")
    return fine("settings", detail)
