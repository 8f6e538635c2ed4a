"""org.flatimage.Fim1.Image: one image that was run or opened."""

from collections.abc import Awaitable, Callable

from dbus_next.signature import Variant

from fimd.bus.callers import Callers
from fimd.bus.declare import Call, Interface, method, prop
from fimd.bus.options import Options, decode_path, encode_path, plain_text
from fimd.bus.paths import instance_path, job_path
from fimd.commits.request import DEFAULT_LEVEL
from fimd.images.images import Image, Images
from fimd.jobs.changes import Changes
from fimd.jobs.job import Job
from fimd.stacks.waiting import patiently

# ruff: noqa: N802 - D-Bus members are named in its own style


class ImageInterface(Interface):
    """An image's facts and settings, as they were when it was last opened, run or set."""

    name = "org.flatimage.Fim1.Image"

    def __init__(self, image: Image, images: Images, changes: Changes, callers: Callers) -> None:
        self._image = image
        self._images = images
        self._changes = changes
        self._callers = callers

    @prop("ay", constant=True)
    def Path(self) -> bytes:
        """The image's real path."""
        return encode_path(self._image.facts.path)

    @prop("ay")
    def DataDir(self) -> bytes:
        """The data directory by which it was last opened or run."""
        return encode_path(self._image.data)

    @prop("s")
    def Overlay(self) -> str:
        """The overlay that the next instance gets: bwrap, overlayfs or unionfs."""
        return self._image.overlay

    @prop("s")
    def StoredOverlay(self) -> str:
        """The overlay that the image itself asks for, empty where it asks for none."""
        return self._image.facts.overlay or ""

    @prop("s")
    def Casefold(self) -> str:
        """One of off, on, preserve."""
        return self._image.facts.casefold

    @prop("a(aytt)")
    def Layers(self) -> list[list[object]]:
        """The layers of the chain and the managed ones, base first: file, offset, size."""
        return [[encode_path(layer.path), layer.offset, layer.size] for layer in self._image.layers]

    @prop("ao")
    def Instances(self) -> list[str]:
        """The running instances' objects."""
        return [instance_path(identifier) for identifier in sorted(self._image.instances)]

    @method("s overlay, a{sv} options")
    async def SetOverlay(self, _call: Call, overlay: str, options: dict[str, Variant]) -> None:
        """Store which overlay the image is to use."""
        Options(options).finish()
        await self._images.set_overlay(self._image, overlay)

    @method("s mode, a{sv} options")
    async def SetCasefold(self, _call: Call, mode: str, options: dict[str, Variant]) -> None:
        """Store whether names are to be found in any case: off, on or preserve."""
        Options(options).finish()
        await self._images.set_casefold(self._image, mode)

    @method("a{sv} options", "a(aytt) layers, as warnings")
    async def ListLayers(self, _call: Call, options: dict[str, Variant]) -> list[object]:
        """Read anew which layers the next instance gets, base first: file, offset, size.

        Options: layers aay (FIM_LAYERS), data ay (FIM_DIR_DATA).
        """
        taken = Options(options)
        external, data = taken.take_paths("layers"), taken.take_path("data")
        taken.finish()
        found = await self._changes.layers(self._image, external, data)
        layers = [[encode_path(item.path), item.offset, item.size] for item in found.sources]
        return [layers, [plain_text(warning) for warning in found.warnings]]

    @method("s mode, a{sv} options", "o job")
    async def Commit(self, call: Call, mode: str, options: dict[str, Variant]) -> list[object]:
        """Make a layer of what was changed: binary, layer, or file.

        Options: path ay (for file), level u (0 to 9), layers aay and data ay as instances have
        them, wait d (seconds to wait for those who use the data directory or change the image).
        """
        taken = Options(options)
        path = taken.take_path("path") or ""
        level = taken.take("level", "u", DEFAULT_LEVEL)
        external, data = taken.take_paths("layers"), taken.take_path("data")
        return await self._start(
            call,
            taken,
            lambda: self._changes.commit(self._image, mode, path, level, external, data),
        )

    @method("ay path, a{sv} options", "o job")
    async def AddLayer(self, call: Call, path: bytes, options: dict[str, Variant]) -> list[object]:
        """Verify a layer file and append it to the image's chain. Options: wait d."""
        source = decode_path(path)
        return await self._start(
            call, Options(options), lambda: self._changes.add(self._image, source)
        )

    @method("u index, a{sv} options", "o job")
    async def RemoveLayer(
        self, call: Call, index: int, options: dict[str, Variant]
    ) -> list[object]:
        """Remove the topmost layer, which has to have this number. Options: data ay, wait d."""
        taken = Options(options)
        data = taken.take_path("data")
        return await self._start(
            call, taken, lambda: self._changes.remove(self._image, index, data)
        )

    @method("u first, u last, a{sv} options", "o job")
    async def SquashLayers(
        self, call: Call, first: int, last: int, options: dict[str, Variant]
    ) -> list[object]:
        """Make one layer of several that ListLayers numbers so. Options as those of Commit."""
        taken = Options(options)
        level = taken.take("level", "u", DEFAULT_LEVEL)
        external, data = taken.take_paths("layers"), taken.take_path("data")
        return await self._start(
            call,
            taken,
            lambda: self._changes.squash(self._image, first, last, level, external, data),
        )

    @method("u index, ay path, a{sv} options", "o job")
    async def ExportLayer(
        self, _call: Call, index: int, path: bytes, options: dict[str, Variant]
    ) -> list[object]:
        """Write a layer to a file that is not there yet. Options: layers aay, data ay."""
        taken = Options(options)
        external, data = taken.take_paths("layers"), taken.take_path("data")
        taken.finish()
        target = decode_path(path)
        job = await self._changes.export(self._image, index, target, external, data)
        return [job_path(job.id)]

    @method("a{sv} options", "o job")
    async def ResetUpper(self, call: Call, options: dict[str, Variant]) -> list[object]:
        """Throw away what was changed since the last commit. Options: data ay, wait d."""
        taken = Options(options)
        data = taken.take_path("data")
        return await self._start(call, taken, lambda: self._changes.reset(self._image, data))

    @method("a{sv} options", "o job")
    async def RemoveData(self, call: Call, options: dict[str, Variant]) -> list[object]:
        """Remove the data directory, with the managed layers. Options: data ay, wait d."""
        taken = Options(options)
        data = taken.take_path("data")
        return await self._start(call, taken, lambda: self._changes.remove_data(self._image, data))

    @method("ay target, a{sv} options", "o job")
    async def CopyData(
        self, call: Call, target: bytes, options: dict[str, Variant]
    ) -> list[object]:
        """Copy the data directory to a path where nothing is. Options: data ay, wait d."""
        taken = Options(options)
        data, path = taken.take_path("data"), decode_path(target)
        return await self._start(
            call, taken, lambda: self._changes.copy_data(self._image, path, data)
        )

    async def _start(
        self, call: Call, taken: Options, start: Callable[[], Awaitable[Job]]
    ) -> list[object]:
        """Start a job, for which the caller may wait; return its path."""
        seconds = taken.take("wait", "d", 0.0)
        taken.finish()
        caller = await self._callers.find(call.sender)
        return [job_path((await patiently(start, seconds, caller.pid)).id)]
