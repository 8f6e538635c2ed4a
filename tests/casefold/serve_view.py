"""Serves the view in a process of its own: SOURCE MOUNT_POINT [preserve|exact]."""

import asyncio
import sys

from fimd.casefold.naming import NAMINGS
from fimd.casefold.view import serve


def ready() -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(
        serve(
            sys.argv[1],
            sys.argv[2],
            naming=NAMINGS[next(filter(NAMINGS.get, sys.argv[3:]), "on")],
            fsname="fimd,test",
            allow_other="allow_other" in sys.argv[3:],
            on_ready=ready,
        )
    )
