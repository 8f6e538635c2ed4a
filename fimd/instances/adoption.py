"""Instances that a former daemon started, made of their records."""

from collections.abc import Mapping
from typing import Any

from fimd.base.errors import FimError
from fimd.images.image import ImageFacts, read_image
from fimd.instances.inside import Inside
from fimd.instances.instance import Instance
from fimd.launch.request import StartRequest
from fimd.layers.mounted import Layer
from fimd.layers.resolve import Resolver
from fimd.mounts.process import Process
from fimd.stacks.stack import Stack

_NEEDED = ("stack", "layers", "image", "data", "mode", "command", "started_at")


def living(pid: int, facts: Mapping[str, Any] | None, directory: str) -> Process | None:
    """Return the process that a record names, None where its instance is over.

    So it is where the record is not whole. The time of its start tells it from another that has its
    PID now. It may have ended, with others inside that go on.
    """
    if facts is None or any(key not in facts for key in _NEEDED):
        return None
    try:
        if facts["pid"] != pid:
            return None
        process = Process.known(pid, facts["process_started"])
        return Process(pid, None) if process is None and _goes_on(facts, directory) else process
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _goes_on(facts: Mapping[str, Any], directory: str) -> bool:
    inside = Inside(directory)
    return inside.init is not None or (
        not facts.get("own_processes", True) and bool(inside.processes())
    )


def image_facts(facts: Mapping[str, Any], resolver: Resolver) -> ImageFacts:
    """Read the image again; where it has been moved or removed since, say what is known."""
    try:
        return read_image(facts["image"], resolver, facts["data"])
    except FimError as error:
        return ImageFacts(
            path=facts["image"],
            reserved_offset=0,
            layers=(),
            overlay=None,
            casefold="off",
            environment={},
            boot=(),
            warnings=(str(error),),
        )


def instance(
    facts: Mapping[str, Any],
    process: Process,
    stack: Stack,
    layers: tuple[Layer, ...],
    image: ImageFacts,
    directory: str,
) -> Instance:
    """Return the instance that a record describes."""
    request = StartRequest(
        image=image.path,
        pid=process.pid,
        mode=facts["mode"],
        root=facts["root"],
        command=tuple(facts["command"]),
    )
    return Instance(
        process=process,
        process_started=facts["process_started"],
        request=request,
        facts=image,
        data=facts["data"],
        stack=stack,
        layers=layers,
        directory=directory,
        started_at=facts["started_at"],
        own_processes=facts.get("own_processes", True),
    )
