"""Serves mounts for the tests: a dict per line on standard input, "ready" and "left N" back.

It imports the server once and forks for each mount, as the daemon's template does.
"""

import ast
import asyncio
import gc
import os
import sys
import threading

sys.path.insert(0, os.getcwd())

from fimd.dwarfs import Image
from fimd.dwarfs.serve import serve


def answer(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def mount(
    image: str,
    mount_point: str,
    offset: int | None,
    size: int | None,
    uid: int | None = None,
    cache_bytes: int = 64 << 20,
    threads: int = 2,
) -> None:
    with Image.open(image, offset, size) as opened:
        asyncio.run(
            serve(
                opened,
                mount_point,
                uid=uid,
                fsname=f"a,odd\\näme {image}",
                cache_bytes=cache_bytes,
                threads=threads,
                on_ready=lambda: answer("ready"),
            )
        )


def main() -> None:
    assert threading.active_count() == 1
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 1
            try:
                mount(**ast.literal_eval(line))
                code = 0
            except Exception as error:  # noqa: BLE001 - the test sees it
                answer(f"failed: {error!r}")
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        answer(f"left {os.waitstatus_to_exitcode(status)}")


main()
