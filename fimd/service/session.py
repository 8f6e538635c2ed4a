"""The user's session under systemd, for applications that the daemon starts for a desktop."""

import os
import re
from collections.abc import Mapping

import structlog
from dbus_next.message import Message

from fimd.bus.buses import Buses
from fimd.bus.connection import BusError
from fimd.service.scopes import APPLICATIONS, managed, start_scope

log = structlog.get_logger(__name__)


class SystemdSession:
    """What systemd's user manager knows and keeps; without it nothing is known or kept."""

    def __init__(self, buses: Buses) -> None:
        self._buses = buses

    async def variables(self) -> Mapping[str, str]:
        """Return the variables that systemd has learnt since the daemon was started.

        A desktop tells systemd of its DISPLAY when it has one (dbus-update-activation-environment).
        """
        if not managed():
            return {}
        message = Message(
            destination="org.freedesktop.systemd1",
            path="/org/freedesktop/systemd1",
            interface="org.freedesktop.DBus.Properties",
            member="Get",
            signature="ss",
            body=["org.freedesktop.systemd1.Manager", "Environment"],
        )
        try:
            [variables] = await self._buses.ask(message)
        except BusError as error:
            log.warning("systemd's environment is unknown", reason=str(error))
            return {}
        pairs = (variable.partition("=") for variable in variables.value)
        return {key: value for key, separator, value in pairs if separator}

    async def settle(self, pid: int, image: str) -> None:
        """Give a program a scope like those that desktops give to what they start."""
        if not managed():
            return
        name = re.sub(r"[^A-Za-z0-9_.]", "_", os.path.basename(image))[:100]
        unit = f"app-flatimage-{name}-{pid}.scope"
        try:
            await start_scope(self._buses, unit, pid, os.path.basename(image), APPLICATIONS)
        except BusError as error:
            log.warning("no scope for a program", unit=unit, reason=str(error))
