"""Mounts a view: the external ciopfs, or the embedded one."""

import shutil
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fimd.base.errors import UnsupportedError
from fimd.base.settings import Settings
from fimd.mounts.external import mount_by_command
from fimd.mounts.namespace import Namespace
from fimd.mounts.process import Process

WORKER: Final = "fimd.casefold.worker"

MODES: Final = ("off", "on", "preserve")
"""The view is not there, shows names in lower case, or as they were created."""

View = Callable[[str, str, str, str, Sequence[str]], Awaitable[Process]]
"""Mounts the view of a directory: its name in the mount table, the directory, the mount point, how
names are found (of NAMINGS), and the branches of the directory where it is a union that copies
nothing up as it should: over one ciopfs would spoil what layers have."""


def choose(settings: Settings, namespace: Namespace) -> View:
    """Return the view's engine that the settings ask for."""
    program = shutil.which("ciopfs")
    if settings.casefold_engine == "external" and program is None:
        raise UnsupportedError(
            "the setting casefold_engine is 'external' and ciopfs is not installed: install it, "
            "or set casefold_engine to 'embedded'"
        )

    async def mount(
        name: str, directory: str, mount_point: str, naming: str, branches: Sequence[str]
    ) -> Process:
        embedded = settings.casefold_engine == "embedded" or naming != "on" or branches
        if program is None or embedded:
            return await namespace.serve(
                WORKER,
                name=f"casefold-{name[:6]}",
                arguments={
                    "directory": directory,
                    "mount_point": mount_point,
                    "naming": naming,
                    "branches": list(branches),
                    "source": f"fimd-{name}",
                },
                serves=("fim_stack", name),
                seconds=settings.mount_timeout,
            )
        return await mount_by_command(
            [program, directory, mount_point, "-f", "-o", f"fsname=fimd-{name},allow_other"],
            serves=("fim_stack", name),
            mount_point=mount_point,
            namespace=namespace,
            seconds=settings.mount_timeout,
        )

    return mount
