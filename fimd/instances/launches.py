"""Starting images for those who can't become a program themselves: launchers and searches.

What is started is no child of the daemon, which may leave before the program does; bubblewrap may
end with its parent (fimd.launch.entry). So a shell in a session of its own says its PID, waits
until it was given its place in the session, and becomes `fimctl app IMAGE`. It is started once the
daemon has an instance of its PID; what keeps it from that is the error.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from fimd.base.errors import BusyError, FimError, MountError, ProcessGoneError, UnsupportedError
from fimd.base.logs import output_of
from fimd.base.observe import Event
from fimd.images.images import Images
from fimd.instances.instance import Instance
from fimd.instances.instances import Instances
from fimd.launch.request import StartRequest
from fimd.mounts.pipes import readable
from fimd.mounts.process import Process

log = structlog.get_logger(__name__)

_SECONDS: Final = 30.0
"""Seconds that a start may take, its mounts included."""
_AT_ONCE: Final = 16
"""Starts that may be under way: a client that goes wild is refused the next one."""
_SHELL: Final = 'echo $$ && read -r _ && exec "$@" </dev/null >&2'
_PRIVATE: Final = (
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "INVOCATION_ID", "JOURNAL_STREAM"),
    *("MAINPID", "SYSTEMD_EXEC_PID", "MANAGERPID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
    *("DBUS_STARTER_ADDRESS", "DBUS_STARTER_BUS_TYPE", "PYTHONUNBUFFERED"),
)
"""What systemd and the bus tell the daemon of itself: it is not true of what it starts."""


@dataclass(frozen=True)
class Origin:
    """What a desktop gives a program along, for its window to get the focus."""

    token: str = ""
    """XDG_ACTIVATION_TOKEN, of Wayland."""
    startup_id: str = ""
    """DESKTOP_STARTUP_ID, of X11."""

    @property
    def variables(self) -> dict[str, str]:
        """The variables that a program looks for."""
        pairs = {"XDG_ACTIVATION_TOKEN": self.token, "DESKTOP_STARTUP_ID": self.startup_id}
        return {name: value for name, value in pairs.items() if value and "\0" not in value}


class Session(Protocol):
    """The user's session, for what is started on behalf of its desktop."""

    async def variables(self) -> Mapping[str, str]:
        """Return what the session has learnt beyond the daemon's own environment."""

    async def settle(self, pid: int, image: str) -> None:
        """Give a program its place among the session's applications, where they have one."""


class Launches:
    """Starts images, each in a session, and a scope, of its own."""

    def __init__(self, session: Session, images: Images, instances: Instances) -> None:
        self._session = session
        self._images = images
        self._started: dict[int, asyncio.Future[None]] = {}
        self._under_way = 0
        instances.running.subscribe(self._on_instance)
        instances.on_refusal = self._on_refusal

    async def launch(self, path: str, words: Sequence[str], origin: Origin) -> int:
        """Start an image as `path WORDS...` does, and return its PID once it runs.

        Raises a FimError, which is logged too, where it does not.
        """
        if self._under_way >= _AT_ONCE:
            raise BusyError(f"{_AT_ONCE} images are being started already: wait for them")
        self._under_way += 1
        try:
            image = (await self._images.open(path)).facts.path
            pid = await self._launch(image, words, origin)
        except FimError as error:
            log.error("launch failed", fim_image=path, reason=str(error))
            raise
        finally:
            self._under_way -= 1
        log.info("launched", fim_image=image, fim_instance=pid)
        return pid

    async def _launch(self, image: str, words: Sequence[str], origin: Origin) -> int:
        environment = {**await self._environment(), **origin.variables}
        command = [sys.executable, "-P", "-m", "fimctl", "app", image, *words]
        reader, writer = os.pipe()
        status, report = os.pipe()
        try:
            with output_of(os.path.basename(image)) as output:
                Process.spawn(
                    ["setsid", "--fork", "sh", "-c", _SHELL, "sh", *command],
                    input_=reader,
                    output=report,
                    errors=output.fileno(),
                    directory=_home(environment),
                    environment=environment,
                    umask=-1,
                )
            os.close(report)
            report = -1
            async with asyncio.timeout(_SECONDS):
                await readable(status)
                said = os.read(status, 32)
                if not said.strip().isdigit():
                    raise UnsupportedError("no program can be started: see 'fimctl logs'")
                return await self._see_off(int(said), writer, image)
        except TimeoutError:
            raise MountError(f"{image} did not start within {_SECONDS:g} s") from None
        finally:
            for descriptor in (reader, writer, status, report):
                if descriptor >= 0:
                    os.close(descriptor)

    async def _see_off(self, pid: int, go: int, image: str) -> int:
        """Let a waiting shell become the image, and wait for its instance."""
        process = Process.watch(pid)
        started = asyncio.get_running_loop().create_future()
        self._started[pid] = started
        process.on_end(lambda: self._fail(pid, _ended(image)))
        try:
            await self._session.settle(pid, image)
            os.write(go, b"\n")
            await started
        except BaseException:
            process.send_signal(signal.SIGTERM)
            raise
        finally:
            del self._started[pid]
            process.close()
        return pid

    def _on_instance(self, event: Event, _key: str, instance: Instance) -> None:
        started = self._started.get(instance.pid)
        if event is Event.ADDED and started is not None and not started.done():
            started.set_result(None)

    def _on_refusal(self, request: StartRequest, error: FimError) -> None:
        self._fail(request.pid, error)

    def _fail(self, pid: int, error: FimError) -> None:
        started = self._started.get(pid)
        if started is not None and not started.done():
            started.set_exception(error)

    async def _environment(self) -> dict[str, str]:
        """Return the session's variables: the daemon's, and those that systemd learnt since.

        A desktop tells systemd of its DISPLAY when it has one (dbus-update-activation-environment).
        """
        variables = {key: value for key, value in os.environ.items() if key not in _PRIVATE}
        return {**variables, **await self._session.variables()}


def _ended(image: str) -> FimError:
    return ProcessGoneError(f"{image} ended before it ran: see 'fimctl logs {image}'")


def _home(environment: Mapping[str, str]) -> str:
    home = environment.get("HOME", "")
    return home if os.path.isdir(home) else "/"
