"""A long life of one image: changes, commits, squashes, other overlays, against a model.

The model is a plain directory in which the same commands run.
"""

import base64
import os
import shlex
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.support.machine import Lasting, live
from tests.support.overlays import INSTALLED
from tests.support.session import Session
from tests.support.tree import Tree, difference, parse

NAMES = ("a", "b", "c", "with space", "new\nline", os.fsdecode(b"not-\xff"))
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
texts = st.text("xyz", max_size=3)

Event = tuple[str, dict[str, Any]]


def event(name: str, **drawn: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    """What a method of Life does, with the arguments that are drawn for it."""
    return st.fixed_dictionaries(drawn).map(lambda arguments: (name, arguments))


changes = (
    event("make_directory", path=paths),
    event("write", path=paths, text=texts, mode=st.sampled_from(["600", "644", "755", "4711"])),
    event("remove", path=paths),
    event("replace", path=paths),
    event("move", source=paths, destination=paths),
    event("link", source=paths, destination=paths),
    event("symlink", path=paths, to=texts),
    event("fifo", path=paths),
    event("change_directory", path=paths, mode=st.sampled_from(["700", "755", "1777", "711"])),
)
commits = event("commit", mode=st.sampled_from(["binary", "layer", "file"]))
switches = event("switch", overlay=st.sampled_from(INSTALLED))
squashes = event("squash", managed=st.booleans(), first=st.integers(0, 3), count=st.integers(1, 3))
events = st.one_of(*changes, *changes, commits, commits, switches, squashes)

LOOK = 'busybox tar -c -f - -C "$PWD" . | busybox base64'


class Shell:
    """A shell that takes one script after another."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def tell(self, script: str) -> bytes:
        """Run a script; return what it printed up to its end, nothing where the shell has ended."""
        given, printed = self.process.stdin, self.process.stdout
        assert given is not None
        assert printed is not None
        given.write(os.fsencode(f"{script}\necho; echo END\n"))
        given.flush()
        lines = []
        while (line := printed.readline()) != b"END\n":
            if not line:
                return b""
            lines.append(line)
        return b"".join(lines)

    def see(self, script: str = "") -> Tree:
        """Run a script in silence; return what there is then below the working directory."""
        printed = self.tell(f"{{ {script or 'true'}; }} 2>/dev/null\n{LOOK}")
        assert printed, "the shell has ended"
        return parse(base64.b64decode(printed))

    def end(self) -> None:
        """Let the shell end."""
        if self.process.returncode is None:
            self.process.communicate(timeout=30)


def facts(tree: Tree) -> dict[bytes, tuple[object, ...]]:
    """What of a tree has to be as in the model: all but owners, times and links."""
    return {path: (*item[:2], *item[4:6]) for path, item in tree.items()}


def directories(tree: Tree) -> set[bytes]:
    """The directories of a tree."""
    return {path for path, item in tree.items() if item[0] == tarfile.DIRTYPE}


@dataclass
class World(Lasting):
    """One image in one session."""

    session: Session
    image: Path
    model: Shell
    overlay: str = "bwrap"
    tree: Tree = field(default_factory=dict)
    """What the model holds."""
    removed: set[bytes] = field(default_factory=set)
    """Directories that are gone since the overlay was mounted."""

    def start(self) -> None:
        """Start the shell that takes the commands."""
        self.removed.clear()
        process = self.session.start(
            *(self.image, "fim-root", "sh"),
            variables={"FIM_OVERLAY": self.overlay},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.instance = Shell(process)
        assert self.instance.tell("cd /w"), self.session.said()

    def restart(self) -> None:
        """Mount the overlay anew."""
        self.history.append("restart")
        self.instance.end()
        self.start()


class Life(RuleBasedStateMachine):
    """What can happen to an image, in any order.

    What is drawn must not depend on the image, which lives on: there are no preconditions.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @rule(event=events)
    def happen(self, event: Event) -> None:
        """Let something happen.

        It is one rule because hypothesis leaves rules out of an example: with one for each kind of
        event most examples would be one kind over and over.
        """
        name, arguments = event
        getattr(self, name)(**arguments)

    def both(self, script: str, *, changes_attributes: bool = False) -> None:
        """Run a script in the model and in the instance, which must not differ after it."""
        world = self.world
        with world.step(script):
            before, world.tree = world.tree, world.model.see(script)
            made = directories(world.tree) - directories(before)
            if world.overlay == "overlayfs" and made & world.removed:
                world.restart()  # its limit "directories made again"
            world.removed |= directories(before) - directories(world.tree)
            seen = world.instance.see(script)
            is_device = any(item[0] == tarfile.CHRTYPE for item in seen.values())
            if world.overlay == "unionfs" and changes_attributes and is_device:
                world.restart()  # its limit "deletions of layers"
                seen = world.instance.see()
            assert facts(seen) == facts(world.tree)

    def kind(self, path: str) -> object:
        """The type of what the model has there."""
        return self.world.tree.get(b"./" + os.fsencode(path), (None,))[0]

    def loses_bits(self, path: str) -> bool:
        """Whether a file's set-user-ID bit may be lost when it gets another name."""
        _, mode, *_ = self.world.tree.get(b"./" + os.fsencode(path), (None, 0))
        assert isinstance(mode, int)
        return self.world.overlay == "overlayfs" and mode & 0o6000 != 0  # its limit "special bits"

    def write(self, path: str, text: str, mode: str) -> None:
        """Write a new file, in the place of one that is there."""
        name = shlex.quote(path)
        self.both(
            f"[ -d {name} ] || {{ rm -f {name}; echo '{text}' > {name} && chmod {mode} {name}; }}"
        )

    def make_directory(self, path: str) -> None:
        """Make a directory with those above it."""
        self.both(f"mkdir -p {shlex.quote(path)}")

    def remove(self, path: str) -> None:
        """Remove whatever a path is."""
        self.both(f"rm -rf {shlex.quote(path)}")

    def replace(self, path: str) -> None:
        """Make a directory of a file, a file of a directory, and an empty one of a full one."""
        name = shlex.quote(path)
        kind = self.kind(path)
        self.both(f"rm -rf {name}")
        self.both(
            f"mkdir {name}"
            if kind == tarfile.REGTYPE
            else f"mkdir {name} && echo new > {name}/fresh"
        )

    def move(self, source: str, destination: str) -> None:
        """Rename something to what is not there."""
        if f"{destination}/".startswith(f"{source}/") or self.kind(destination) is not None:
            return
        if self.loses_bits(source):
            return
        if self.world.overlay == "overlayfs" and self.kind(source) == tarfile.FIFOTYPE:
            return  # its limit "special files"
        old, new = shlex.quote(source), shlex.quote(destination)
        is_directory = self.kind(source) == tarfile.DIRTYPE
        # unionfs's limit "directories lose content", overlayfs's "renaming directories made again"
        if is_directory and self.world.overlay in {"unionfs", "overlayfs"}:
            self.both(f"cp -a {old} {new} && rm -rf {old}")
        else:
            self.both(f"mv {old} {new}")

    def link(self, source: str, destination: str) -> None:
        """Give a file another name; files are never changed in place here, only replaced."""
        if self.loses_bits(source):
            return
        old, new = shlex.quote(source), shlex.quote(destination)
        self.both(f"[ -f {old} ] && ln {old} {new}")
        if self.world.overlay == "bwrap":
            with self.world.step("see the link"):
                self.world.restart()  # its limit "numbers of layers' links"

    def symlink(self, path: str, to: str) -> None:
        """Make a symbolic link."""
        name = shlex.quote(path)
        self.both(f"[ -e {name} ] || [ -L {name} ] || ln -s 'to-{to}' {name}")

    def fifo(self, path: str) -> None:
        """Make a fifo."""
        name = shlex.quote(path)
        # with a mode, which the overlays heed more than the umask
        self.both(f"[ -e {name} ] || [ -L {name} ] || mkfifo -m 640 {name}")

    def change_directory(self, path: str, mode: str) -> None:
        """Change a directory's mode and time."""
        name = shlex.quote(path)
        self.both(
            f"[ -d {name} ] && chmod {mode} {name} && touch -d '2005-05-05 05:05:05' {name}",
            changes_attributes=True,
        )

    def unchanged(
        self, what: str, act: Callable[[], None], *, directory_times: bool = True
    ) -> None:
        """Do something without an instance, after which everything is to look the same."""
        world = self.world
        with world.step(what):
            before, overlay = world.instance.see(), world.overlay
            world.instance.end()
            act()
            world.start()
            overlays = {overlay, world.overlay}
            links = "unionfs" not in overlays
            # fuse-overlayfs shows the time that a directory had a while ago
            directory_times = directory_times and "overlayfs" not in overlays
            assert not difference(
                before, world.instance.see(), links=links, directory_times=directory_times
            )

    def commit(self, mode: str) -> None:
        """Commit; what would lie below a layer that hides it is committed above that."""
        own = self.world.image.with_name("own.layer")

        def act() -> None:
            words = [mode, own] if mode == "file" else [mode]
            done = self.fimctl(self.world.image, "fim-layer", "commit", *words)
            if done.returncode and "would lie below" in done.stderr:
                done = self.fimctl(self.world.image, "fim-layer", "commit", "layer")
            assert done.returncode == 0, done.stderr
            if own.exists():
                layers = own.with_name(f".{self.world.image.name}.data") / "layers"
                numbers = [int(path.name[6:9]) for path in layers.iterdir()]
                own.rename(layers / f"layer-{max(numbers, default=-1) + 1:03}.layer")

        # in the image they come to lie below managed layers
        self.unchanged(f"commit {mode}", act, directory_times=mode != "binary")

    def switch(self, overlay: str) -> None:
        """Use another overlay, with all that was changed committed or not."""

        def act() -> None:
            self.world.overlay = overlay

        self.unchanged(f"switch to {overlay}", act)

    def squash(self, managed: bool, first: int, count: int) -> None:
        """Make one layer of a range of the image's own, or of the managed ones."""
        with self.world.step("list the layers"):
            listed = self.world.session.output(self.world.image, "fim-layer", "list").splitlines()
        group = [
            number
            for number, line in enumerate(listed)
            if line.endswith(self.world.image.name) is not managed
        ]
        if len(group) < 2:
            return
        first = group[min(first, len(group) - 2)]
        last = min(first + count, group[-1])

        def act() -> None:
            done = self.fimctl("fimctl", "layer", "squash", self.world.image, str(first), str(last))
            assert done.returncode == 0, done.stderr

        self.unchanged(f"squash {first} to {last}", act)

    def fimctl(self, *words: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command that compresses quickly."""
        return self.world.session.run(*words, variables={"FIM_COMPRESSION_LEVEL": "1"})


def live_on(session: Session, image: Path, examples: int, *, derandomize: bool = False) -> None:
    """Run the machine: each example goes on in the world that the last one left.

    With `derandomize` the same happens every time.
    """
    directory = session.directory / "work" / "model"
    session.run("mkdir", directory)
    session.output(image, "fim-root", "mkdir", "/w")
    model = Shell(
        session.start(
            *("busybox", "sh"), directory=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    )
    model.tell("umask 022")
    world = World(session, image, model)
    world.start()
    try:
        live(partial(Life, world), examples, 10, world=world, derandomize=derandomize)
    finally:
        world.instance.end()
        model.end()


@pytest.fixture
def session(new_session: Callable[..., Session]) -> Session:
    """A session whose layers stay mounted from one start to the next, as users' do."""
    return new_session(FIMD_LINGER="20")


def test_nothing_that_happens_to_an_image_changes_what_its_applications_see(
    session: Session, image: Path
) -> None:
    live_on(session, image, 40, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_nothing_that_happens_to_an_image_in_a_long_life_does(
    session: Session, image: Path
) -> None:
    live_on(session, image, 1000)
