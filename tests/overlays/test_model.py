"""Whatever is done to files, a stack shows what a plain directory does; also by another overlay."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from fimd.overlays import KNOWN
from tests.overlays.conftest import need
from tests.overlays.stacks import KINDS, Mounter, fill, fill_above, limits_of
from tests.support.machine import Lasting, live

NAMES = ["a", "b", "file", "dir", "sub", "full", "deep", "over", "gone", "one", "with space"]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
texts = st.text("xyz", max_size=3)

Facts = dict[str, tuple[object, ...]]


def facts(top: Path) -> Facts:
    """What there is below a directory: kind, mode, and the content or target."""
    found: Facts = {}
    for parent, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            content = (
                path.read_bytes()
                if stat.S_ISREG(mode)
                else os.readlink(path)
                if stat.S_ISLNK(mode)
                else b""
            )
            found[str(path.relative_to(top))] = (mode, content)
    return found


class World(Lasting):
    """A stack and its model."""

    def __init__(self, mounter: Mounter, model: Path, kinds: list[tuple[str, str]]) -> None:
        super().__init__()
        self.mounter = mounter
        self.model = model
        self.kinds = kinds
        self.turns = cycle(kinds)
        self.removed: set[str] = set()
        """Directories that are gone since the stack was mounted."""
        self._mount: AbstractContextManager[Path] | None = None
        self.mount(kinds[0])

    def mount(self, kind: tuple[str, str]) -> None:
        """Mount the stack by an overlay, in place of the one that is mounted."""
        with self.step(f"mount by {kind}"):
            self.unmount()
            self.limits = limits_of(*kind)
            mount = self.mounter.mounted(*kind)
            self.root = mount.__enter__() / "case0"
            self._mount = mount
            self.removed.clear()
            self.kind = kind
            self.check()

    def unmount(self) -> None:
        """Unmount the stack."""
        mount, self._mount = self._mount, None
        if mount is not None:
            mount.__exit__(None, None, None)

    def check(self) -> None:
        """Compare the stack with the model."""
        assert facts(self.root) == facts(self.model)

    def both(self, name: str, act: Callable[[Path], None]) -> None:
        """Do the same in the stack and in the model: both succeed or both fail."""
        with self.step(name):
            outcomes = []
            for top in (self.root, self.model):
                try:
                    act(top)
                except OSError as error:
                    outcomes.append(type(error).__name__)
                else:
                    outcomes.append("done")
            assert outcomes[0] == outcomes[1]
            self.check()


class Life(RuleBasedStateMachine):
    """What programs do to files."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        world.mount(next(world.turns))

    @rule(path=paths, text=texts)
    def create(self, path: str, text: str) -> None:
        def act(top: Path) -> None:
            with (top / path).open("x") as file:
                file.write(text)

        self.world.both(f"create {path}", act)

    @rule(path=paths, text=texts)
    def append(self, path: str, text: str) -> None:
        def act(top: Path) -> None:
            file = top / path
            if file.is_file() and file.stat().st_nlink == 1:  # links of layers part
                with file.open("a") as opened:
                    opened.write(text)

        self.world.both(f"append to {path}", act)

    @rule(path=paths, size=st.integers(0, 9))
    def truncate(self, path: str, size: int) -> None:
        def act(top: Path) -> None:
            if (top / path).is_file() and (top / path).stat().st_nlink == 1:
                os.truncate(top / path, size)

        self.world.both(f"truncate {path} to {size}", act)

    @rule(path=paths)
    def remove(self, path: str) -> None:
        self.world.both(f"remove {path}", lambda top: (top / path).unlink())

    @rule(path=paths)
    def remove_tree(self, path: str) -> None:
        def act(top: Path) -> None:
            if (top / path).is_dir() and not (top / path).is_symlink():
                shutil.rmtree(top / path)
                self.world.removed.add(path)

        self.world.both(f"remove the tree {path}", act)

    @rule(path=paths)
    def make_directory(self, path: str) -> None:
        if "directories made again" in self.world.limits and self.world.removed:
            self.world.mount(self.world.kind)
        self.world.both(f"make the directory {path}", lambda top: (top / path).mkdir())

    @rule(old=paths, new=paths)
    def rename(self, old: str, new: str) -> None:
        def act(top: Path) -> None:
            if (top / old).is_symlink() or not (top / old).is_dir():
                os.rename(top / old, top / new)
            elif not os.path.lexists(top / new) and not f"{new}/".startswith(f"{old}/"):
                shutil.copytree(top / old, top / new, symlinks=True)  # as mv does for layers'
                shutil.rmtree(top / old)
                self.world.removed.add(old)

        if "directories made again" in self.world.limits and self.world.removed:
            self.world.mount(self.world.kind)
        self.world.both(f"rename {old} to {new}", act)

    @rule(path=paths, to=texts)
    def symlink(self, path: str, to: str) -> None:
        self.world.both(f"link {path}", lambda top: (top / path).symlink_to(f"to{to}"))

    @rule(old=paths, new=paths)
    def link(self, old: str, new: str) -> None:
        def act(top: Path) -> None:
            if (top / old).is_file():
                os.link(top / old, top / new)

        self.world.both(f"link {old} to {new}", act)

    @rule(path=paths, mode=st.sampled_from([0o600, 0o644, 0o755]))
    def change_mode(self, path: str, mode: int) -> None:
        def act(top: Path) -> None:
            if not (top / path).is_symlink() and (top / path).is_file():
                (top / path).chmod(mode)

        self.world.both(f"change the mode of {path}", act)

    @rule(data=st.data())
    def mount_again(self, data: st.DataObject) -> None:
        self.world.mount(data.draw(st.sampled_from(self.world.kinds)))


@pytest.fixture
def world_of(tmp_path: Path, layers: list[Path]) -> Iterator[Callable[..., World]]:
    """Make the one world of a test."""

    @contextmanager
    def make(kinds: list[tuple[str, str]]) -> Iterator[World]:
        model = tmp_path / "model"
        fill(model)
        for deleted in ("dir/gone", "over/one", "over/two"):
            (model / deleted).unlink()
        above = tmp_path / "above" / "case0"
        fill_above(above)
        shutil.copytree(above, model, dirs_exist_ok=True)
        with Mounter(tmp_path, layers) as mounter:
            world = World(mounter, model, kinds)
            try:
                yield world
            finally:
                world.unmount()

    made = []

    def new(kinds: list[tuple[str, str]]) -> World:
        made.append(make(kinds))
        return made[-1].__enter__()

    yield new
    for context in made:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_a_stack_shows_what_a_plain_directory_does(
    kind: tuple[str, str], world_of: Callable[..., World]
) -> None:
    need(kind[0])
    world = world_of([kind])
    live(partial(Life, world), 6, 25, world=world, derandomize=True)


@pytest.mark.parametrize("overlay", KNOWN)
@pytest.mark.parametrize("next_overlay", KNOWN)
def test_what_a_layer_deletes_is_away_with_the_next_mount_whatever_its_directory_went_through(
    tmp_path: Path, layers: list[Path], overlay: str, next_overlay: str
) -> None:
    need(overlay)
    need(next_overlay)
    with Mounter(tmp_path, layers) as mounter:
        with mounter.mounted(overlay) as root:
            (root / "case0" / "dir").chmod(0o700)
            os.utime(root / "case0" / "over", ns=(0, 0))
        with mounter.mounted(next_overlay) as root:
            assert sorted(os.listdir(root / "case0" / "dir")) == ["a", "b", "sub"]
            assert os.listdir(root / "case0" / "over") == ["three"]
            assert (root / "case0" / "dir").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("examples", "derandomize"), [(25, True), pytest.param(400, False, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(1800)
def test_switching_overlays_back_and_forth_under_changes_changes_nothing_else(
    world_of: Callable[..., World], examples: int, derandomize: bool
) -> None:
    for overlay in KNOWN:
        need(overlay)
    world = world_of([(overlay, "off") for overlay in KNOWN])
    live(partial(Life, world), examples, 15, world=world, derandomize=derandomize)
    switches = sum(line.startswith("mount by") for line in world.history)
    assert switches >= 20
