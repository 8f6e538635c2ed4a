"""org.flatimage.Fim1.Manager: the way in."""

import os
from dataclasses import fields

from dbus_next.signature import Variant

from fimd import __version__
from fimd.base.errors import InvalidArgumentError
from fimd.base.live import LiveSettings
from fimd.base.settings import Settings
from fimd.bus.buses import Buses
from fimd.bus.callers import own_process
from fimd.bus.declare import Call, Interface, method, prop
from fimd.bus.options import Options, decode_path, encode_path, plain_text
from fimd.bus.paths import image_path, instance_path, job_path
from fimd.commits.request import DEFAULT_LEVEL
from fimd.images.images import Images
from fimd.instances.housekeeping import Housekeeping
from fimd.instances.instance import Instance
from fimd.instances.instances import Instances
from fimd.instances.narration import narrate
from fimd.jobs.changes import Changes
from fimd.launch.plan import LaunchPlan
from fimd.launch.request import StartRequest

# ruff: noqa: N802 - D-Bus members are named in its own style

_SIGNATURES = {str: "s", float: "d", int: "u"}


class ManagerInterface(Interface):
    """Starting instances, opening images, and what the daemon is."""

    name = "org.flatimage.Fim1.Manager"

    def __init__(
        self,
        instances: Instances,
        images: Images,
        buses: Buses,
        live: LiveSettings,
        engines: dict[str, str],
        changes: Changes,
        housekeeping: Housekeeping,
    ) -> None:
        self._instances = instances
        self._images = images
        self._buses = buses
        self._live = live
        self._engines = engines
        self._changes = changes
        self._housekeeping = housekeeping

    @prop("s", constant=True)
    def Version(self) -> str:
        """The daemon's version."""
        return __version__

    @prop("a{ss}", constant=True)
    def Engines(self) -> dict[str, str]:
        """What does the work: dwarfs → embedded or external."""
        return self._engines

    @prop("a{sv}")
    def Settings(self) -> dict[str, Variant]:
        """The settings in force."""
        values = ((item.name, getattr(self._live.settings, item.name)) for item in fields(Settings))
        return {name: Variant(_SIGNATURES[type(value)], value) for name, value in values}

    @prop("a{ss}")
    def SettingsOrigins(self) -> dict[str, str]:
        """Where each setting comes from: default, a file's path, or a variable's name."""
        return {name: plain_text(origin) for name, origin in self._live.origins.items()}

    @method("ay image, a{sv} options", "o instance, aay argv, aay environment, a{sv} details")
    async def StartInstance(
        self, call: Call, image: bytes, options: dict[str, Variant]
    ) -> list[object]:
        """Mount an image for a process, which is then to execute `argv`.

        The process is the caller unless the option `pid` (u) names another of the same user. It
        sets `environment` (KEY=VALUE) over its own, in which today there is nothing, and appends
        the program's words to `argv`.
        Further options: mode s (exec, root or boot), root b (FIM_ROOT), command aay (shown to
        people), environment aay (the caller's, KEY=VALUE: what the image stores may refer to it,
        and PATH is where the programs that make the sandbox are looked for), layers aay
        (FIM_LAYERS), overlay s, casefold s, data ay (FIM_DIR_DATA), executed b (the user has
        executed the image's file, whose bindings may then show anything), wait d (seconds to wait
        for those who use the data directory with other layers or another overlay), debug b.

        Details: warnings as; find a(aytt), for a process with mounts of its own: path, device and
        inode of what it has to have there, or else not to execute `argv`; ignore-signals au, those
        to be ignored when `argv` is executed, which resets them inside; desktop b and notify b,
        where the image is to be shown on the desktop, and its start told; debug aay, lines about
        the start. What says nothing is left out.
        """
        taken = Options(options)
        pid = taken.take("pid", "u")
        process = call.caller if pid is None else own_process(pid)
        request = StartRequest(
            image=decode_path(image),
            pid=process.pid,
            started=process.started,
            mode=taken.take("mode", "s", "exec"),
            root=taken.take("root", "b", False),
            command=_words(taken.take("command", "aay", [])),
            environment=_environment(taken.take("environment", "aay", [])),
            layers=_words(taken.take("layers", "aay", [])),
            overlay=taken.take("overlay", "s"),
            casefold=taken.take("casefold", "s"),
            data=taken.take_path("data"),
            executed=taken.take("executed", "b", False),
            wait=taken.take("wait", "d", 0.0),
        )
        debug = taken.take("debug", "b", False)
        taken.finish()
        instance, plan, warnings = await self._instances.start(request)
        return [
            instance_path(instance.id),
            [encode_path(word) for word in plan.argv],
            [],
            _details(instance, plan, warnings, debug=debug),
        ]

    @method("ay path, a{sv} options", "o image")
    async def OpenImage(
        self, _call: Call, path: bytes, options: dict[str, Variant]
    ) -> list[object]:
        """Read an image's facts and settings, and return its object. Options: data ay."""
        taken = Options(options)
        data = taken.take_path("data")
        taken.finish()
        image = await self._images.open(decode_path(path), data)
        return [image_path(image.id)]

    @method("ay directory, ay output, a{sv} options", "o job")
    async def CreateLayer(
        self, _call: Call, directory: bytes, output: bytes, options: dict[str, Variant]
    ) -> list[object]:
        """Make a layer file of a directory, in place of the one that is there.

        Options: level u (0 to 9), files ay (a list of paths in the directory, one a line).
        """
        taken = Options(options)
        level, files = taken.take("level", "u", DEFAULT_LEVEL), taken.take_path("files")
        taken.finish()
        source, target = decode_path(directory), decode_path(output)
        return [job_path(self._changes.create(source, target, level, files).id)]

    @method("a{sv} options", "aay argv")
    async def JoinNamespace(self, call: Call, options: dict[str, Variant]) -> list[object]:
        """Return what to put before a command to run it where everything is mounted.

        The namespace stays for as long as the caller's process lives.
        """
        Options(options).finish()
        join = await self._housekeeping.lend_namespace(call.caller.pid)
        return [[encode_path(word) for word in join]]

    @method("s address, a{sv} options")
    async def JoinBus(self, _call: Call, address: str, options: dict[str, Variant]) -> None:
        """Take the daemon's names on another session bus of this user too, until that ends."""
        Options(options).finish()
        if not address.startswith("unix:"):
            raise InvalidArgumentError(f"{address!r} is no address of a bus on a socket (unix:…)")
        await self._buses.join(address, is_told=True)

    @method("a{sv} options", "u layers, u leftovers")
    async def Prune(self, _call: Call, options: dict[str, Variant]) -> list[object]:
        """Unmount now the layers that nobody uses, and remove what crashes have left.

        Unpacked layers that nobody uses go, too, and count among the directories. With the option
        `data` (ay) also what could not be removed from that data directory before. Returns how many
        layers and how many directories those were.
        """
        given = Options(options)
        data = given.take_path("data")
        given.finish()
        return list(await self._housekeeping.prune(data))

    @method("a{sv} options")
    async def Shutdown(self, _call: Call, options: dict[str, Variant]) -> None:
        """Leave. Running instances go on, for the next daemon to take over.

        With the option `kill` (b) they are ended first: asked, and killed after `timeout` (u, 10)
        seconds.
        """
        taken = Options(options)
        kill, seconds = taken.take("kill", "b", False), taken.take("timeout", "u", 10)
        taken.finish()
        await self._housekeeping.leave(seconds=min(seconds, 3600) if kill else None)


def _words(values: list[bytes]) -> tuple[str, ...]:
    return tuple(os.fsdecode(bytes(value)) for value in values)


def _environment(values: list[bytes]) -> dict[str, str]:
    pairs = (word.partition("=") for word in _words(values))
    return {key: value for key, separator, value in pairs if separator}


def _details(
    instance: Instance, plan: LaunchPlan, warnings: list[str], *, debug: bool
) -> dict[str, Variant]:
    lines = [encode_path(line) for line in narrate(instance)] if debug else []
    details = {
        "warnings": Variant("as", [plain_text(warning) for warning in warnings]),
        "find": Variant(
            "a(aytt)", [[encode_path(item.path), item.device, item.inode] for item in plan.seen]
        ),
        "ignore-signals": Variant("au", list(plan.ignored_signals)),
        "desktop": Variant("b", instance.facts.desktop is not None),
        "notify": Variant("b", instance.facts.notify),
        "debug": Variant("aay", lines),
    }
    return {name: detail for name, detail in details.items() if detail.value}
