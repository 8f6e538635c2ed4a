"""No overlay at all: a copy of the tree in the upper itself, where the kernel refuses the others.

The data directory has been made ready for it (fimd.commits.copied), so that the upper is the tree.
"""

import os
from typing import Any

from fimd.base.errors import MountError
from fimd.base.system_calls import MS_BIND, mount
from fimd.mounts.steps import Step
from fimd.overlays.stack import StackDirectory, open_checked


def begin(stack: StackDirectory, seconds: float) -> Step:
    """Return the step that shows the upper."""
    arguments = {"path": stack.path, "upper": stack.upper}
    return Step(f"{__name__}:show", "copy", seconds, arguments)


def show(arguments: dict[str, Any], _files: list[int]) -> dict[str, str]:
    """Show the upper in this process's namespace, and return where.

    Raises MountError, DataDirectoryError.
    """
    path = arguments["path"]
    upper = open_checked(path, "upper", arguments["upper"])
    root = os.path.join(path, "merged")
    try:
        mount(f"/proc/self/fd/{upper}", root, "", MS_BIND, "")
    except OSError as error:
        raise MountError(f"the copy can't be shown: {error.strerror}") from error
    finally:
        os.close(upper)
    return {"root": root}
