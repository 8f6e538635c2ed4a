"""What a worker does that serves the embedded view (see fimd.mounts.template)."""

from collections.abc import Callable
from typing import Any

from fimd.casefold.naming import NAMINGS
from fimd.casefold.view import serve as serve_view


async def serve(arguments: dict[str, Any], _files: list[int], on_ready: Callable[[], None]) -> None:
    """Serve the view of a directory until it is unmounted."""
    await serve_view(
        arguments["directory"],
        arguments["mount_point"],
        naming=NAMINGS[arguments["naming"]],
        branches=arguments["branches"],
        fsname=arguments["source"],
        allow_other=True,  # in this namespace: whoever runs there
        on_ready=on_ready,
    )
