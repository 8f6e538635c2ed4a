"""Serves the view in a process of its own: SOURCE MOUNT_POINT [preserve]."""

import asyncio
import sys

from fimd.casefold.view import serve


def ready() -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(
        serve(
            sys.argv[1],
            sys.argv[2],
            preserve="preserve" in sys.argv[3:],
            fsname="fimd,test",
            allow_other="allow_other" in sys.argv[3:],
            on_ready=ready,
        )
    )
