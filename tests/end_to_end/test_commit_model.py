"""A long life of one image: changes, commits, squashes, other overlays, against a model.

The model is a plain directory in which the same commands run.
"""

import base64
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from tests.support.session import Session
from tests.support.tree import Tree, difference, parse

PART = 20
OVERLAYS = ("bwrap", "overlayfs", "unionfs")
NAMES = ("a", "b", "c", "with space", r"new\nline", r"not-\377")
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)
modes = st.sampled_from(["600", "644", "755", "4711"])
texts = st.text("xyz", max_size=3)


def quoted(path: list[str]) -> str:
    """A path as a word of a shell, whose names printf made."""
    return "/".join(f'"${{n{NAMES.index(name)}}}"' for name in path)


PREPARE = "\n".join(
    # the dot keeps a newline at the end
    f"n{number}=$(printf '{name}.'); n{number}=${{n{number}%.}}"
    for number, name in enumerate(NAMES)
)


@dataclass
class World:
    """One image in one session, for all examples: each goes on where the last one ended."""

    session: Session
    image: Path
    model: Path
    overlay: str = "bwrap"
    instance: "subprocess.Popen[bytes] | None" = None
    history: list[str] = field(default_factory=list)

    @property
    def recent(self) -> str:
        """What happened last, for who has to find out why something is wrong."""
        return "\n".join(self.history[-40:])

    def start(self) -> None:
        """Start the shell that takes the commands."""
        self.instance = self.session.start(
            *(self.image, "fim-root", "sh"),
            variables={"FIM_OVERLAY": self.overlay},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.tell(f"cd /w\n{PREPARE}")

    def tell(self, script: str) -> bytes:
        """Have the instance run a script; return what it printed up to its end."""
        instance = self.instance
        assert instance is not None
        assert instance.stdin is not None
        assert instance.stdout is not None
        instance.stdin.write(f"{script}\necho; echo END\n".encode())
        instance.stdin.flush()
        lines = []
        while (line := instance.stdout.readline()) not in {b"END\n", b""}:
            lines.append(line)
        assert line, self.session.said()
        return b"".join(lines)

    def stop(self) -> None:
        """End the instance."""
        if self.instance is not None:
            self.instance.communicate(timeout=30)
            self.instance = None

    def seen(self) -> Tree:
        """What the instance sees."""
        archive = self.tell("busybox tar -c -f - -C /w . | busybox base64")
        return parse(base64.b64decode(archive))


class Life(RuleBasedStateMachine):
    """What can happen to an image, in any order."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        if world.instance is None:
            world.start()

    def both(self, script: str) -> None:
        """Run a script in the instance and in the model, which must not differ after it."""
        script = f"{{ {script}; }} 2>/dev/null"
        self.world.history.append(script)
        self.world.tell(script)
        subprocess.run(
            ["busybox", "sh", "-c", f"umask 022\ncd {self.world.model}\n{PREPARE}\n{script}"],
            check=False,
            **self.world.session.account.switch,
        )
        self.check()

    def check(self) -> None:
        """Compare what is seen with the model: all but times, links and what the model lacks."""
        done = subprocess.run(
            ["busybox", "tar", "-c", "-f", "-", "-C", self.world.model, "."],
            check=True,
            capture_output=True,
            **self.world.session.account.switch,
        )
        expected, shown = parse(done.stdout), self.world.seen()

        def facts(tree: Tree) -> dict[bytes, tuple[object, ...]]:
            return {path: (*item[:2], *item[4:6]) for path, item in tree.items()}

        assert facts(shown) == facts(expected), self.world.recent

    @rule(path=paths, text=texts, mode=modes)
    def write(self, path: list[str], text: str, mode: str) -> None:
        """Write a new file, in the place of one that is there."""
        name = quoted(path)
        self.both(
            f"[ -d {name} ] || {{ rm -f {name}; echo '{text}' > {name} && chmod {mode} {name}; }}"
        )

    @rule(path=paths)
    def make_directory(self, path: list[str]) -> None:
        """Make a directory with those above it."""
        self.both(f"mkdir -p {quoted(path)}")

    @rule(path=paths)
    def remove(self, path: list[str]) -> None:
        """Remove whatever a path is."""
        self.both(f"rm -rf {quoted(path)}")

    @rule(path=paths)
    def replace(self, path: list[str]) -> None:
        """Make a directory of a file, a file of a directory, and an empty one of a full one."""
        name = quoted(path)
        self.both(
            f"if [ -f {name} ]; then rm -f {name}; mkdir {name}; else rm -rf {name}; mkdir {name}; "
            f"echo new > {name}/fresh; fi"
        )

    @rule(source=paths, destination=paths)
    def move(self, source: list[str], destination: list[str]) -> None:
        """Rename something to what is not there."""
        old, new = quoted(source), quoted(destination)
        self.both(f'[ -e {new} ] || [ "${{PWD}}"/{old} = "${{PWD}}"/{new} ] || mv {old} {new}')

    @rule(source=paths, destination=paths)
    def link(self, source: list[str], destination: list[str]) -> None:
        """Give a file another name; files are never changed in place here, only replaced."""
        # what is drawn must not depend on an image that lives on: no precondition
        self.both(f"[ -f {quoted(source)} ] && ln {quoted(source)} {quoted(destination)}")

    @rule(path=paths, to=texts)
    def symlink(self, path: list[str], to: str) -> None:
        """Make a symbolic link."""
        name = quoted(path)
        self.both(f"[ -e {name} ] || [ -L {name} ] || ln -s 'to-{to}' {name}")

    @rule(path=paths)
    def fifo(self, path: list[str]) -> None:
        """Make a fifo."""
        name = quoted(path)
        self.both(f"[ -e {name} ] || [ -L {name} ] || mkfifo {name}")

    @rule(path=paths, mode=st.sampled_from(["700", "755", "1777", "711"]))
    def change_directory(self, path: list[str], mode: str) -> None:
        """Change a directory's mode and time."""
        name = quoted(path)
        self.both(f"[ -d {name} ] && chmod {mode} {name} && touch -d '2005-05-05 05:05:05' {name}")

    def unchanged(self, act: Callable[[], None], *, directory_times: bool = True) -> None:
        """Do something without an instance, after which everything is to look the same."""
        before, overlay = self.world.seen(), self.world.overlay
        self.world.stop()
        act()
        self.world.start()
        overlays = {overlay, self.world.overlay}
        links = "unionfs" not in overlays
        # fuse-overlayfs shows the time that a directory had a while ago
        directory_times = directory_times and "overlayfs" not in overlays
        assert not difference(
            before, self.world.seen(), links=links, directory_times=directory_times
        ), self.world.recent

    @rule(mode=st.sampled_from(["binary", "layer", "file"]))
    def commit(self, mode: str) -> None:
        """Commit; what would lie below a layer that hides it is committed above that."""
        own = self.world.image.with_name("own.layer")

        def act() -> None:
            self.world.history.append(f"commit {mode}")
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
        self.unchanged(act, directory_times=mode != "binary")

    @rule(overlay=st.sampled_from(OVERLAYS))
    def switch(self, overlay: str) -> None:
        """Use another overlay, with all that was changed committed or not."""

        def act() -> None:
            self.world.history.append(f"switch to {overlay}")
            self.world.overlay = overlay

        self.unchanged(act)

    @rule(managed=st.booleans(), first=st.integers(0, 3), count=st.integers(1, 3))
    def squash(self, managed: bool, first: int, count: int) -> None:
        """Make one layer of a range of the image's own, or of the managed ones."""
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
            self.world.history.append(f"squash {first} to {last}")
            done = self.fimctl("fimctl", "layer", "squash", self.world.image, str(first), str(last))
            assert done.returncode == 0, done.stderr

        self.unchanged(act)

    def fimctl(self, *words: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command that compresses quickly."""
        return self.world.session.run(*words, variables={"FIM_COMPRESSION_LEVEL": "1"})


def live(session: Session, image: Path, examples: int, steps: int) -> None:
    """Run the machine, in parts: each example goes on in the world that the last one left, so
    hypothesis must not draw conclusions from what it has seen long ago.
    """
    model = session.directory / "work" / "model"
    session.run("mkdir", model)
    session.output(image, "fim-root", "mkdir", "/w")
    world = World(session, image, model)
    configuration = settings(
        max_examples=min(examples, PART),
        stateful_step_count=steps,
        deadline=None,
        phases=[Phase.generate],  # a failure can't be replayed on an image that lives on
        suppress_health_check=list(HealthCheck),
        database=None,
        print_blob=False,
    )
    try:
        for _ in range(0, examples, PART):
            life = partial(Life, world)
            run_state_machine_as_test(life, settings=configuration)  # type: ignore[arg-type]  # a factory
    finally:
        world.stop()


def test_nothing_that_happens_to_an_image_changes_what_its_applications_see(
    session: Session, image: Path
) -> None:
    live(session, image, 5, 20)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_nothing_that_happens_to_an_image_in_a_long_life_does(
    session: Session, image: Path
) -> None:
    live(session, image, 1000, 10)
