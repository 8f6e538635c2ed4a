"""Programs that every sandbox finds beside its own.

The entry program runs whatever runs there, and a shell is for images that have none. They are
static, because the sandbox has libraries of its own or none at all, and are copied into the runtime
tree, where the sandbox sees them read-only.
"""

import filecmp
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fimd.base.paths import RuntimeTree
from fimd.launch import entry

_CANDIDATES: Final = {
    "bash": ("/bin/bash-static", "/usr/bin/bash-static"),
    "busybox": ("/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"),
}
_PT_INTERP: Final = 3
ENTRY: Final = "entry"
"""The name of the entry program, which only some machines have (fimd.launch.entry)."""


def provide(tree: RuntimeTree) -> None:
    """Copy the static programs that the host has; one that is there and the same stays."""
    if os.statvfs(tree.root).f_flag & os.ST_NOEXEC:
        return  # nothing could be executed there: the image's own shell has to do
    for name, paths in _CANDIDATES.items():
        for path in paths:
            if _is_static(path):
                _place(Path(path), tree.programs / name)
                break
    _place_applets(tree)
    if entry.PROGRAM.is_file():
        _place(entry.PROGRAM, tree.programs / ENTRY)
    else:
        (tree.programs / ENTRY).unlink(missing_ok=True)  # a former version's may do other things


def _place_applets(tree: RuntimeTree) -> None:
    """Make a link for each of busybox's programs: FIM_DIR_APP_SBIN."""
    busybox = tree.programs / "busybox"
    if not busybox.exists() or (tree.applets / "sh").is_symlink():
        return
    listed = subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, timeout=10, check=False
    )
    # the shell last, since it tells that all are there
    for name in sorted(listed.stdout.split(), key=lambda name: name == "sh"):
        if name != "busybox" and "/" not in name and not (tree.applets / name).is_symlink():
            (tree.applets / name).symlink_to("../bin/busybox")


def _place(source: Path, target: Path) -> None:
    """Copy atomically, unless it is there already: size and time alone anybody could give it."""
    facts = source.stat()
    try:
        present = target.lstat()
        same = (present.st_size, present.st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
        regular = stat.S_ISREG(present.st_mode)
        if same and regular and filecmp.cmp(source, target, shallow=False):
            return
    except FileNotFoundError:
        pass
    with _replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        os.utime(temporary, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give a name beside the target to write to, and put that in the target's place."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _is_static(path: str) -> bool:
    """Tell whether a file is an ELF program without an interpreter (elf(5))."""
    try:
        with open(path, "rb") as file:
            header = file.read(64)
            if header[:5] != b"\x7fELF\x02":
                return False
            table = int.from_bytes(header[32:40], "little")
            size = int.from_bytes(header[54:56], "little")
            count = int.from_bytes(header[56:58], "little")
            file.seek(table)
            entries = file.read(size * count)
    except OSError:
        return False
    kinds = (int.from_bytes(entries[at : at + 4], "little") for at in range(0, len(entries), size))
    return len(entries) == size * count and _PT_INTERP not in kinds
