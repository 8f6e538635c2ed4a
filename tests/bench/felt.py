"""First starts of real programs, as a person waits for them, beside the unpacked tree and `dwarfs`.

Debian's packages of all of them make one tree and one layer, once: as root, in a directory below
/var/cache, where they stay and take some GiB. Each program is started in turn everywhere, round
after round: first, with nothing mounted; first, with the image's file out of the page cache; and
again.
"""

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fimd.dwarfs.write import create
from tests.bench.rows import Row
from tests.bench.timing import Rounds, seconds
from tests.bench.world import MissingError, Script, make_image, new_session
from tests.support.session import Session

_RELEASE: Final = "bookworm"
_CACHE: Final = Path("/var/cache/fimd-bench/felt")  # which the session's user may enter
_LEVEL: Final = 7
_ROUNDS: Final = 9
_MOST_FIRST, _MOST_FIRST_MEAN = 1.0, 0.85
_MOST_AGAIN, _SLOW, _MORE_AGAIN = 1.15, 0.100, 0.020
"""Of the unpacked tree's time where that is so many seconds, and seconds more where it is less."""
_OURS, _UNREAD, _AGAIN, _PLAIN, _EXTERNAL = "ours", "ours, unread", "again", "unpacked", "dwarfs"


@dataclass(frozen=True)
class Program:
    """A program, the packages that have it, and the C++ driver's first start on a quiet machine."""

    packages: str
    words: tuple[str, ...]
    driver: float  # seconds, with dwarfs 0.15.3


PROGRAMS: Final = {
    "Python importing GTK": Program(
        "python3-gi gir1.2-gtk-3.0",
        (
            *("python3", "-c"),
            "import gi; gi.require_version('Gtk', '3.0'); from gi.repository import Gtk",
        ),
        0.298,
    ),
    "GIMP, batch": Program(
        "gimp",
        (
            *("gimp-console", "-idf", "--no-shm", "--batch-interpreter=plug-in-script-fu-eval"),
            *("-b", "(gimp-quit 0)"),
        ),
        1.589,
    ),
    "LibreOffice, --version": Program(
        "libreoffice-core",
        # FlatImage's variable leads it to libraries that miss those beside the program
        ("env", "-u", "LD_LIBRARY_PATH", "soffice", "--version"),
        0.438,
    ),
    "Emacs, batch": Program("emacs-nox", ("emacs", "-Q", "--batch", "--eval", "t"), 0.316),
    "node": Program("nodejs", ("node", "-e", "1"), 0.342),
    "R": Program("r-base-core", ("Rscript", "--vanilla", "-e", "1"), 0.292),
    "Java, -version": Program("default-jre-headless", ("java", "-version"), 0.132),
    "git, --version": Program("git", ("git", "--version"), 0.046),
    "Firefox, --version": Program("firefox-esr", ("firefox-esr", "--version"), 0.293),
}


def measure() -> Iterator[Row]:
    """Measure the first start of each program and another one."""
    tree = _make_tree()
    layer = _make_layer(tree)
    with tempfile.TemporaryDirectory(prefix="fimd-bench-") as scratch, new_session() as session:
        made = make_image([layer], Path(scratch, "image"))
        image = session.adopt(made, "app.flatimage")
        external = Script(session, "dwarfs", [layer]) if shutil.which("dwarfs") else None
        firsts = []
        for name, program in PROGRAMS.items():
            rounds = _starts(session, image, tree, program, external)
            if external is None:
                beside, driver = "dwarfs, on a quiet machine", program.driver
                ratio = rounds.median(_OURS) / driver
            else:
                beside, driver = "dwarfs", rounds.median(_EXTERNAL)
                ratio = rounds.ratio(_OURS, _EXTERNAL)
            firsts.append(ratio)
            yield _row(f"{name}: first", rounds.median(_OURS), beside, driver, ratio, _MOST_FIRST)
            yield _row(f"{name}: first, its file unread", rounds.median(_UNREAD))
            yield _again(name, rounds)
        mean = math.exp(sum(map(math.log, firsts)) / len(firsts))
        reached = mean <= _MOST_FIRST_MEAN
        reach = f"≤ {_MOST_FIRST_MEAN:g}"
        yield Row("geometric mean of the first starts", "", "", "", mean, reach, reached)


def _row(
    what: str,
    value: float,
    beside: str = "",
    other: float = 0.0,
    ratio: float | None = None,
    most: float | None = None,
) -> Row:
    figures = f"{value * 1e3:.0f} ms", beside, f"{other * 1e3:.0f} ms" if beside else ""
    if ratio is None or most is None:
        return Row(what, *figures, ratio)
    return Row(what, *figures, ratio, f"≤ {most:g}", ratio <= most)


def _again(name: str, rounds: Rounds) -> Row:
    ours, plain = rounds.median(_AGAIN), rounds.median(_PLAIN)
    ratio = rounds.ratio(_AGAIN, _PLAIN)
    if plain > _SLOW:
        return _row(f"{name}: again", ours, "the unpacked tree", plain, ratio, _MOST_AGAIN)
    figures = f"{ours * 1e3:.0f} ms", "the unpacked tree", f"{plain * 1e3:.0f} ms", ratio
    reach = f"≤ {_MORE_AGAIN * 1e3:g} ms more"
    return Row(f"{name}: again", *figures, reach, ours - plain <= _MORE_AGAIN)


def _starts(
    session: Session, image: Path, tree: Path, program: Program, external: Script | None
) -> Rounds:
    """Start a program everywhere in turn, and once more where it is still mounted."""
    words = ("sh", "-c", 'exec "$@" 2>/dev/null', "sh", *program.words)
    start = partial(session.output, str(image), "fim-exec", *words)
    plain = ["bwrap", "--ro-bind", str(tree), "/", "--dev", "/dev", "--proc", "/proc"]
    actions: dict[str, Callable[[], object]] = {
        _OURS: start,
        _UNREAD: start,
        _PLAIN: partial(session.output, *plain, "--tmpfs", "/tmp", "--", *words),
    }
    if external is not None:
        actions[_EXTERNAL] = partial(session.output, *external.command(*words))
    rounds = Rounds()
    for number in range(_ROUNDS + 1):
        for kind in list(actions)[:: -1 if number % 2 else 1]:
            session.output("fimctl", "prune")
            session.wait_until_clean()
            if kind == _UNREAD:
                _forget(image)
            taken = seconds(actions[kind])
            again = seconds(start) if kind == _OURS else 0.0
            if number:  # the first round warms up
                rounds.note(kind, taken)
                if kind == _OURS:
                    rounds.note(_AGAIN, again)
    return rounds


def _forget(file: Path) -> None:
    """Have the kernel drop a file's content."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _make_tree() -> Path:
    """The tree with all programs, made where it is not there yet."""
    tree = _CACHE / "tree"
    if tree.exists():
        return tree
    if os.getuid() or not shutil.which("debootstrap"):
        raise MissingError(f"{tree} is made by root, with debootstrap")
    made = _CACHE / "new"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    packages = " ".join(program.packages for program in PROGRAMS.values())
    install = f"apt-get update && apt-get install -y --no-install-recommends {packages}"
    namespace = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={made}/proc"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["debootstrap", "--variant=minbase", _RELEASE, str(made)],
        [*namespace, "chroot", str(made), "sh", "-c", f"{install} && apt-get clean"],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode:
            shutil.rmtree(made)
            said = done.stderr.decode(errors="replace").splitlines() or ["nothing"]
            raise MissingError(f"{command[0]} failed, and said: {said[-1]}")
    made.rename(tree)
    return tree


def _make_layer(tree: Path) -> Path:
    layer = tree.parent / f"level{_LEVEL}.layer"
    if not layer.exists():
        made = layer.with_suffix(".new")
        create(tree, made, level=_LEVEL)
        made.rename(layer)
    return layer
