"""The external mkdwarfs, where it is installed: it is faster than the embedded writer.

Commits are always packed by the embedded one: mkdwarfs takes what is on the disk, and deletions in
their canonical form are not there.
"""

import shutil
import subprocess
import tempfile
from typing import Final

from fimd.base.errors import FimError, UnsupportedError
from fimd.base.settings import Settings
from fimd.commits.work import Work

_POLL: Final = 0.1
_GRACE: Final = 5.0


def find(settings: Settings) -> str | None:
    """Return the program that the settings ask for, None for the embedded writer."""
    program = shutil.which("mkdwarfs")
    if settings.engine == "external" and program is None:
        raise UnsupportedError(
            "the setting engine is 'external' and mkdwarfs is not installed: install it, or set "
            "engine to 'embedded'"
        )
    return None if settings.engine == "embedded" else program


def pack(
    program: str, directory: str, output: str, level: int, file_list: str | None, work: Work
) -> None:
    """Pack a directory, or what a list names in it, into a file that is replaced."""
    command = [
        *("setpriv", "--pdeathsig", "KILL", "--"),  # a worker that is killed leaves nothing behind
        *(program, "--input", directory, "--output", output, "--force"),
        *("--compress-level", str(level), "--with-devices", "--with-specials", "--no-progress"),
        *([] if file_list is None else ["--input-list", file_list]),
    ]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        ) as process,
    ):
        try:
            while process.poll() is None:
                work.check()
                work.progress("pack", 0, 0)
                _wait(process, _POLL)
        finally:
            if process.returncode is None:
                process.terminate()
                _wait(process, _GRACE)
                process.kill()
        if process.returncode:
            errors.seek(0)
            said = errors.read(1 << 16).decode(errors="replace").strip().splitlines()
            reason = said[-1] if said else f"exit status {process.returncode}"
            raise FimError(f"mkdwarfs could not pack {directory}: {reason}")


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
