"""The process of one job: reads a request from standard input, writes what happens to its output.

The request is one JSON object with `operation` and `arguments`; each event is one on a line:
`{"progress": [phase, done, total]}`, `{"note": text}`, and at the end `{"result": {...}}` or
`{"error": [name, text]}`. SIGTERM cancels. The process dies with the daemon.

What works on a data directory is started in the user's namespace, as root of which it can imprison
itself (fimd.jobs.operations), and read and remove the user's own files whatever mode they have.
"""

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_INTERVAL: Final = 0.1


class _Reporter:
    """Writes events; and remembers whether the work is to stop."""

    def __init__(self) -> None:
        self.stopped = False
        self._written = 0.0
        self._phase = ""

    def stop(self, *_: object) -> None:
        self.stopped = True

    def write(self, **event: Any) -> None:
        os.write(1, json.dumps(event).encode() + b"\n")

    def progress(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase or now - self._written >= _INTERVAL:
            self._phase, self._written = phase, now
            self.write(progress=[phase, done, total])


def main() -> int:
    """Do what the request says."""
    report = _Reporter()
    signal.signal(signal.SIGTERM, report.stop)
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    os.umask(0o022)
    with open(0, "rb", closefd=False) as file:
        request = json.loads(file.read())
    # slow to import: a parent that has died meanwhile is noticed before
    from fimd.base.errors import BadLayerError, FimError  # noqa: PLC0415
    from fimd.commits.work import Work  # noqa: PLC0415
    from fimd.dwarfs.errors import CancelledError, DwarfsError  # noqa: PLC0415
    from fimd.flatimage import errors as image_errors  # noqa: PLC0415
    from fimd.jobs.operations import find  # noqa: PLC0415

    work = Work(report.progress, lambda text: report.write(note=text), lambda: report.stopped)
    try:
        operation = find(request["operation"])
        operation(request["arguments"], work, lambda result: report.write(result=result))
    except (CancelledError, image_errors.CancelledError):
        report.write(error=["Cancelled", f"the {request['operation']} was cancelled"])
    except MemoryError:
        report.write(error=[FimError.name, f"the {request['operation']} took too much memory"])
    except (DwarfsError, image_errors.ImageError, FimError, OSError) as error:
        name = FimError.name
        if isinstance(error, FimError):
            name = error.name
        elif isinstance(error, image_errors.BusyImageError):
            name = "Busy"
        elif isinstance(error, image_errors.ReadOnlyImageError):
            name = "AccessDenied"
        elif isinstance(error, image_errors.NotALayerError):
            name = BadLayerError.name
        report.write(error=[name, str(error)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
