"""Changing an image and its data directory: commits, layers added and removed, each as a job.

Whatever is being changed is reserved for the job, and refused to instances and to other jobs.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from fimd.base.errors import InvalidArgumentError
from fimd.base.settings import Settings
from fimd.commits import mkdwarfs
from fimd.commits.request import CommitRequest, check_level
from fimd.images.images import Image, Images
from fimd.jobs.job import Job
from fimd.jobs.jobs import Jobs
from fimd.layers.resolve import Resolver
from fimd.layers.source import LayerSource
from fimd.mounts.namespace import Namespace
from fimd.stacks.data import DataDirectory
from fimd.stacks.stacks import Stacks
from fimd.stacks.waiting import Turns


@dataclass(frozen=True)
class Layers:
    """The layers of an image as its next instance gets them, base first, and what was left out."""

    data: DataDirectory
    sources: tuple[LayerSource, ...]
    warnings: tuple[str, ...]

    @property
    def places(self) -> list[tuple[str, int, int]]:
        """Each layer's file, offset and size."""
        return [(source.path, source.offset, source.size) for source in self.sources]


class Changes:
    """Starts the jobs that change images and data directories."""

    def __init__(
        self,
        images: Images,
        stacks: Stacks,
        resolver: Resolver,
        jobs: Jobs,
        settings: Settings,
        namespace: Namespace,
    ) -> None:
        self._images = images
        self._stacks = stacks
        self._resolver = resolver
        self._jobs = jobs
        self._settings = settings
        self._namespace = namespace
        self._changing: dict[str, str] = {}
        self._turns = Turns()

    async def layers(self, image: Image, external: Sequence[str], data: str | None) -> Layers:
        """Read anew which layers an image has. `external` is FIM_LAYERS, `data` FIM_DIR_DATA."""
        image = await self._images.open(image.facts.path, data)
        directory = await asyncio.to_thread(DataDirectory.of, image.facts.path, data)
        warnings = list(image.facts.warnings)
        found = await asyncio.to_thread(
            self._resolver.external, [*external, directory.layers], warnings
        )
        return Layers(directory, (*image.facts.layers, *found), tuple(warnings))

    async def commit(
        self,
        image: Image,
        mode: str,
        path: str,
        level: int,
        external: Sequence[str],
        data: str | None,
    ) -> Job:
        """Make a layer of what was changed. Raises InUseError, with the PIDs of who uses it."""
        check_level(level)
        name = image.facts.path
        async with AsyncExitStack() as held:
            layers = await self._reserve(held, "a commit", image, external, data)
            above = len(layers.sources) - len(image.facts.layers) if mode == "binary" else 0
            request = CommitRequest(name, mode, path, level, (), above)
            if mode == "binary":
                held.enter_context(self._changes_image(name, "a commit"))
            data_facts = asdict(layers.data)
            arguments = {**vars(request), "data": data_facts, "lower": layers.places}
            return self._start("commit", image, arguments, held, self._namespace.join)

    async def add(self, image: Image, path: str) -> Job:
        """Append a layer file to the image's chain."""
        arguments = {"image": image.facts.path, "path": path}
        return await self._change_image("add", image, arguments)

    async def squash(
        self,
        image: Image,
        first: int,
        last: int,
        level: int,
        external: Sequence[str],
        data: str | None,
    ) -> Job:
        """Make one layer of those numbered `first` to `last` in the list."""
        check_level(level)

        def arguments(layers: Layers) -> dict[str, Any]:
            if not 0 <= first < last < len(layers.sources):
                raise InvalidArgumentError(
                    f"{first} to {last} is no range of two layers or more: there are 0 to "
                    f"{len(layers.sources) - 1}"
                )
            places = layers.places
            return {"below": places[:first], "layers": places[first : last + 1], "level": level}

        return await self._change_stack("squash", image, external, data, arguments)

    async def remove(self, image: Image, index: int, data: str | None) -> Job:
        """Remove the topmost layer, which has that number in the list without FIM_LAYERS."""

        def arguments(layers: Layers) -> dict[str, Any]:
            if index != len(layers.sources) - 1:
                raise InvalidArgumentError(
                    f"layer {index} is not the topmost, which is {len(layers.sources) - 1}: only "
                    "that can be removed"
                )
            return {"layer": layers.places[index]}

        return await self._change_stack("remove", image, (), data, arguments)

    async def export(
        self, image: Image, index: int, path: str, external: Sequence[str], data: str | None
    ) -> Job:
        """Write the layer with that number to a file."""
        layers = await self.layers(image, external, data)
        if not 0 <= index < len(layers.sources) or not path.startswith("/"):
            raise InvalidArgumentError(
                f"there is no layer {index}: there are 0 to {len(layers.sources) - 1}"
                if path.startswith("/")
                else f"{path!r} is not an absolute path"
            )
        arguments = {"layer": layers.places[index], "output": path}
        return self._jobs.start("export", path, arguments, AsyncExitStack())

    async def reset(self, image: Image, data: str | None) -> Job:
        """Throw away what was changed in the data directory."""
        return await self._change_data("reset", "a reset", image, data, {})

    async def remove_data(self, image: Image, data: str | None) -> Job:
        """Remove the data directory, with all that was changed and the managed layers."""
        return await self._change_data("remove-data", "a removal", image, data, {})

    async def copy_data(self, image: Image, target: str, data: str | None) -> Job:
        """Copy the data directory to a path where nothing is."""
        if not target.startswith("/") or target.rstrip("/") == "":
            raise InvalidArgumentError(f"{target!r} is not an absolute path of a directory")
        arguments = {"target": target.rstrip("/")}
        return await self._change_data("copy-data", "a copy", image, data, arguments)

    async def _change_data(
        self, what: str, purpose: str, image: Image, data: str | None, arguments: dict[str, Any]
    ) -> Job:
        """Start what takes a data directory as a whole."""
        async with AsyncExitStack() as held:
            layers = await self._reserve(held, purpose, image, (), data)
            facts = {"data": asdict(layers.data), **arguments}
            return self._start(what, image, facts, held, self._namespace.join)

    async def _reserve(
        self,
        held: AsyncExitStack,
        purpose: str,
        image: Image,
        external: Sequence[str],
        data: str | None,
    ) -> Layers:
        """Keep a data directory until `held` is closed, and only then read the layers."""
        await self._images.open(image.facts.path, data)  # no directory is made for one that is gone
        directory = await asyncio.to_thread(DataDirectory.of, image.facts.path, data)
        await held.enter_async_context(self._stacks.reserve(directory, purpose))
        await held.enter_async_context(self._namespace.held())
        return await self.layers(image, external, data)

    async def _change_stack(
        self,
        what: str,
        image: Image,
        external: Sequence[str],
        data: str | None,
        arguments: Callable[[Layers], dict[str, Any]],
    ) -> Job:
        """Start what changes both an image and its data directory.

        `arguments` are what the job needs to know of the layers.
        """
        name = image.facts.path
        async with AsyncExitStack() as held:
            layers = await self._reserve(held, f"a {what}", image, external, data)
            held.enter_context(self._changes_image(name, f"a {what}"))
            known = {"image": name, "data": asdict(layers.data)}
            facts = {**known, **arguments(layers)}
            return self._start(what, image, facts, held, self._namespace.join)

    async def _change_image(self, what: str, image: Image, arguments: dict[str, Any]) -> Job:
        async with AsyncExitStack() as held:
            held.enter_context(self._changes_image(image.facts.path, "an addition"))
            return self._start(what, image, arguments, held)

    def create(self, directory: str, output: str, level: int, file_list: str | None = None) -> Job:
        """Make a layer file of a directory."""
        check_level(level)
        for path in (directory, output, *([file_list] if file_list else [])):
            if not path.startswith("/"):
                raise InvalidArgumentError(f"{path!r} is not an absolute path")
        arguments = {
            "directory": directory,
            "output": output,
            "level": level,
            "file_list": file_list,
            "program": mkdwarfs.find(self._settings),
        }
        return self._jobs.start("create", output, arguments, AsyncExitStack())

    def _start(
        self,
        what: str,
        image: Image,
        arguments: dict[str, Any],
        held: AsyncExitStack,
        join: Sequence[str] = (),
    ) -> Job:
        kept = held.pop_all()
        kept.push_async_callback(partial(self._images.open, image.facts.path, image.data))
        return self._jobs.start(what, image.facts.path, arguments, kept, join)

    @contextmanager
    def _changes_image(self, path: str, purpose: str) -> Iterator[None]:
        if path in self._changing:
            raise self._turns.refuse(
                path,
                f"{path} is being changed by {self._changing[path]}: try again once that is done",
            )
        self._changing[path] = purpose
        try:
            yield
        finally:
            del self._changing[path]
            self._turns.free(path)
