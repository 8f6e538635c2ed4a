"""Switching the overlay shows the same tree, whatever was changed and deleted under another."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.overlays import INSTALLED
from tests.support.session import Session

SHOW = (
    "cd {top} && find . | sort | while read -r f; do "
    'if [ -d "$f" ]; then echo "d $f"; else echo "f $f $(cat "$f")"; fi; done'
)
NAMES = ("a", "b", "c", "sub", "deep")


def make_tree(top: Path) -> None:
    """A tree with something to delete at every depth."""
    for directory in ("", "sub", "sub/deep", "deep", "deep/sub"):
        (top / directory).mkdir(parents=True, exist_ok=True)
        for name in ("a", "b", "c"):
            (top / directory / name).write_text(f"base {directory}/{name}\n")


def random_change(dice: random.Random, number: int, overlay: str) -> str:
    """A command that changes something below the current directory, or fails in silence.

    A fuse-overlayfs has, as its limits say, names of a layer's directory in one that is made again
    in its place: there, none is.
    """

    def path() -> str:
        return "/".join(dice.choice(NAMES) for _ in range(dice.randint(1, 3)))

    one, other = path(), path()
    made = f"of-{number}/{one}" if overlay == "overlayfs" else one
    return dice.choice(
        [
            f"rm -rf {one}",
            f"rm -rf {one}",
            f"mkdir -p {made}",
            f"rm -rf {made}; mkdir -p {made}",
            f"rm -rf {made}; mkdir -p $(dirname {made}); echo {number} > {made}",
            f"echo {number} >> {one}",
            f"test -f {one} && mv {one} {other}",
            f"mkdir -p {made} && echo {number} > {made}/a",
        ]
    )


def change(session: Session, image: Path, overlay: str, script: str) -> str:
    """Run a script that has to succeed; return what it printed."""
    words = ("fim-root", "sh", "-ec", script)
    return session.output(image, *words, variables={"FIM_OVERLAY": overlay})


def commit(session: Session, image: Path) -> None:
    """Make a layer, without any warning."""
    done = session.run(image, "fim-layer", "commit", "layer")
    assert done.returncode == 0, done
    assert "W::" not in done.stderr


@pytest.mark.parametrize("rounds", [20, pytest.param(40, marks=pytest.mark.slow)])
def test_switching_back_and_forth_under_changes_leaves_the_tree_as_it_was(
    session: Session, image: Path, busybox: Path, rounds: int
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    tree = session.directory / "tree"
    make_tree(tree / "t")
    layer = session.directory / "work" / "base.layer"
    create = [sys.executable, "-P", "-m", "fimctl", "dwarfs", "create", "--no-progress", "-l", "1"]
    subprocess.run([*create, "-i", tree, "-o", layer], check=True, capture_output=True)
    layer.chmod(0o644)
    model = session.directory / "model"
    shutil.copytree(tree / "t", model)

    def both(variables: dict[str, str]) -> tuple[str, str]:
        """What the model holds, and what the image shows."""
        host = [str(busybox), "sh", "-c", SHOW.format(top=model)]
        held = subprocess.run(host, capture_output=True, text=True, check=True).stdout
        inside = SHOW.format(top="/t")
        return held, session.output(image, "fim-exec", "sh", "-c", inside, variables=variables)

    previous = ""
    for number in range(rounds):
        overlay = dice.choice([name for name in INSTALLED if name != previous])
        previous = overlay
        variables = {"FIM_OVERLAY": overlay, "FIM_LAYERS": str(layer)}
        script = "; ".join(
            f"{{ {random_change(dice, number, overlay)}; }}" for _ in range(dice.randint(1, 8))
        )
        expected, shown = both(variables)
        assert shown == expected, f"before round {number}, {overlay}"
        subprocess.run(
            [busybox, "sh", "-c", f"cd {model}; {script}"], capture_output=True, check=False
        )
        session.run(image, "fim-exec", "sh", "-c", f"cd /t; {script}", variables=variables)
        expected, shown = both(variables)
        assert shown == expected, f"after round {number}, {overlay}: {script}"


@pytest.mark.parametrize("overlay", INSTALLED)
@pytest.mark.parametrize("committed", [False, True])
def test_a_directory_in_place_of_a_file_has_no_names_of_one_that_was_there_before_the_file(
    session: Session, image: Path, overlay: str, committed: bool
) -> None:
    change(session, image, overlay, "mkdir -p /w/a/old /w/b/c/old")
    commit(session, image)
    change(session, image, overlay, "rm -r /w/a /w/b/c; echo x > /w/a; echo x > /w/b/c")
    commit(session, image)
    again = "rm /w/a /w/b/c; mkdir /w/a /w/b/c; echo x > /w/a/new"
    change(session, image, overlay, again)
    if committed:
        commit(session, image)
    for other in (overlay, *INSTALLED, *INSTALLED):
        found = change(session, image, other, "find /w")
        assert sorted(found.split()) == ["/w", "/w/a", "/w/a/new", "/w/b", "/w/b/c"], other


@pytest.mark.parametrize("overlay", INSTALLED)
def test_what_is_removed_from_a_directory_made_again_does_not_uncover_a_hidden_one(
    session: Session, image: Path, overlay: str
) -> None:
    first = "mkdir -p /w/$d/sub; echo old > /w/$d/x; echo old > /w/$d/sub/y"
    change(session, image, "bwrap", f"for d in a b; do {first}; done")
    commit(session, image)
    change(session, image, "bwrap", "rm -r /w/a /w/b; echo file > /w/b")
    commit(session, image)
    change(session, image, "bwrap", "rm /w/b; mkdir -p /w/a/sub /w/b/sub")
    again = "for f in x sub/y; do echo new > $d/$f; rm $d/$f; ls $d/$f 2>/dev/null || true; done"
    for _ in ("in the upper", "in a layer"):
        script = f"for d in /w/a /w/b; do {again}; done; find /w"
        shown = change(session, image, overlay, script)
        assert sorted(shown.split()) == ["/w", "/w/a", "/w/a/sub", "/w/b", "/w/b/sub"]
        commit(session, image)


@pytest.mark.parametrize("overlay", INSTALLED)
def test_hard_links_of_several_layers_are_not_taken_for_each_other(
    session: Session, image: Path, overlay: str
) -> None:
    for name in ("1", "2", "3"):
        script = f"mkdir -p /w/{name}; cd /w/{name}; echo {name} > a; ln a b"
        change(session, image, overlay, script)
        commit(session, image)
    script = "cp -a /w /copy; cd /copy; cat 1/a 1/b 2/a 2/b 3/a 3/b"
    copied = change(session, image, overlay, script)
    assert copied.split() == ["1", "1", "2", "2", "3", "3"]


@pytest.mark.parametrize("first", INSTALLED)
@pytest.mark.parametrize("second", sorted({"bwrap", "unionfs"} & set(INSTALLED)))
def test_a_directory_made_again_after_a_switch_is_empty_at_every_depth(
    session: Session, image: Path, first: str, second: str
) -> None:
    change(session, image, "bwrap", "mkdir -p /w/deep/sub/directory; touch /w/deep/sub/file")
    commit(session, image)
    change(session, image, first, "rm -rf /w/deep")
    made = "mkdir /w/deep; mkdir /w/deep/sub; mkdir /w/deep/sub/file; find /w/deep | sort"
    expected = "/w/deep\n/w/deep/sub\n/w/deep/sub/file\n"
    assert change(session, image, second, made) == expected
