"""Whatever an upper holds, and whoever exchanges it meanwhile: nothing outside is touched."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fimd.base.removal
import fimd.images.layered_settings
import fimd.jobs.operations
import fimd.stacks.jailed
import fimd.stacks.status
from fimd.base.system_calls import open_without_mounts
from fimd.layers.place import LayerPlace
from tests.attacks import operations
from tests.attacks.hostile import DIRECTORIES, NAMES, PARTS, SECRET, Hostile, look_at, make_image
from tests.attacks.operations import OPERATIONS, REFUSALS, manage
from tests.support.account import PLAIN_ACCOUNT
from tests.support.children import in_child
from tests.support.layers import chain, shown

JAILED = (fimd.images.layered_settings, fimd.jobs.operations, fimd.stacks.jailed)

EXAMPLES = 25
QUIET_SEED = 0
"""With it nothing but an upper's own directories is exchanged."""
KINDS = ("file", "empty", "deleted", "fifo", "link", "link to the same", "relative link")
directories = st.sampled_from(
    ["directory", "directory", "directory", "link", "link to the same", "deleted", "closed"]
)
names = st.sampled_from([*KINDS, "link to a file"])


@st.composite
def hostile(draw: st.DrawFn) -> Hostile:
    """A data directory with anything at every place."""
    kinds = {path: draw(directories) for path in DIRECTORIES}
    for path in ("", *DIRECTORIES):
        for name in draw(st.sets(st.sampled_from(NAMES), max_size=3)):
            kinds[os.path.join(path, name)] = draw(names)
    parts = draw(st.sampled_from([(), (), (), *((part,) for part in PARTS)]))
    return Hostile(kinds, parts, draw(st.integers(0, 1 << 30)))


@contextmanager
def place() -> Iterator[Path]:
    """A directory where any user may make one, and which is gone afterwards."""
    scratch = Path(tempfile.mkdtemp(prefix="fimd-attack-", dir="/dev/shm"))
    scratch.chmod(0o777)
    try:
        yield scratch
    finally:
        for path, found, _ in os.walk(scratch):
            for name in found:
                if not os.path.islink(os.path.join(path, name)):
                    os.chmod(os.path.join(path, name), 0o700)
        shutil.rmtree(scratch)


@cache
def image_bytes() -> bytes:
    """An image with some layer."""
    with tempfile.TemporaryDirectory() as scratch:
        return make_image(Path(scratch)).read_bytes()


def attack(scratch: Path, attacked: Hostile, operation: str) -> None:
    """Do an operation while a program exchanges what it works on, and look at what is outside."""
    data, canary = attacked.make(scratch)
    (scratch / "out").mkdir()
    image = scratch / "app.flatimage"
    image.write_bytes(image_bytes())
    manage(data, image)
    before = look_at(canary)

    def operate() -> None:
        try:
            OPERATIONS[operation](data, image)
        except REFUSALS:
            return

    with attacked.exchanging(scratch):
        status = in_child(operate)
    assert status == 0, "the operation broke off"
    assert look_at(canary) == before
    for layer in [*scratch.rglob("*.layer"), image]:
        if layer.is_file() and not layer.is_relative_to(canary) and not layer.is_symlink():
            places = (
                chain(layer)
                if layer == image
                else [LayerPlace(str(layer), 0, layer.stat().st_size)]
            )
            assert all(SECRET not in content for _, content in shown(places).values())


def attacks(operation: str, attacked: Hostile, *, as_plain: bool) -> int:
    """Attack as root or as a plain user; return 0 where it was repelled."""
    image_bytes()
    with place() as scratch:
        return in_child(lambda: attack(scratch, attacked, operation), as_plain=as_plain)


USERS = [
    pytest.param(False, id="own account"),
    pytest.param(
        True,
        id=PLAIN_ACCOUNT,
        marks=pytest.mark.skipif(os.getuid() != 0, reason="this is a plain user"),
    ),
]


@pytest.mark.parametrize("as_plain", USERS)
@pytest.mark.parametrize("operation", OPERATIONS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(attacked=hostile())
def test_nothing_outside_is_read_changed_or_removed(
    operation: str, as_plain: bool, attacked: Hostile
) -> None:
    assert attacks(operation, attacked, as_plain=as_plain) == 0


@contextmanager
def unguarded() -> Iterator[None]:
    """Work as if there were no jail, and links were followed where they are not."""
    patch = pytest.MonkeyPatch()
    guarded_open = os.open
    guarded_without_mounts = open_without_mounts

    def follow(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        return guarded_open(path, flags & ~os.O_NOFOLLOW, *arguments, **options)

    def follow_too(directory: int, name: bytes, flags: int) -> int:
        return guarded_without_mounts(directory, name, flags & ~os.O_NOFOLLOW)

    patch.setattr(os, "open", follow)
    patch.setattr(fimd.base.removal, "open_without_mounts", follow_too)
    for module in (*JAILED, fimd.stacks.status, operations):
        patch.setattr(module, "imprison", lambda *_, **__: None)
    try:
        yield
    finally:
        patch.undo()


@pytest.mark.parametrize(
    ("part", "operation"),
    [("tmp", "reset"), ("work", "adapt to bwrap"), ("layers", "commit to a layer")],
)
def test_without_jail_and_care_a_link_in_place_of_a_part_is_a_way_out(
    part: str, operation: str
) -> None:
    """So the test above sees what it is there to see."""
    attacked = Hostile({"a": "directory", "gone": "deleted", "f": "file"}, (part,), QUIET_SEED)
    with unguarded():
        assert attacks(operation, attacked, as_plain=False) == 1
    assert attacks(operation, attacked, as_plain=False) == 0


@pytest.mark.parametrize("operation", ["commit to a layer", "status", "adapt to unionfs"])
def test_without_jail_and_care_what_is_exchanged_in_an_upper_is_a_way_out(operation: str) -> None:
    kinds = dict.fromkeys(("a", "a/b", "a/b/c", "dir"), "directory") | {"a/b/gone": "deleted"}
    kinds |= dict.fromkeys(("a/f", "a/b/f", "a/b/c/f", "dir/f"), "file")
    attempts = (Hostile(kinds, (), seed) for seed in range(1000))  # it is a race; most need ten
    with unguarded():
        assert any(attacks(operation, attacked, as_plain=False) for attacked in attempts)
