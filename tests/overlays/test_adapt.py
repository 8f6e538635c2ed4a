"""An upper directory is brought to the form of another overlay, and shows the same tree."""

import os
import stat
from pathlib import Path

from fimd.dwarfs.write import create
from fimd.layers.place import LayerPlace, opened_files
from fimd.overlays.adapt import adapt
from fimd.stacks.data import DataDirectory
from fimd.trees.marks import HIDDEN

LONG_AGO = 1_000_000_000 * 10**9
MARKS = b".unionfs-fuse"


def make_layer(tmp_path: Path) -> LayerPlace:
    """A layer with a directory of its own time, mode and owner, in which something can go."""
    source = tmp_path / "source"
    inner = source / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "gone").write_text("x")
    for path in (inner, inner.parent):
        path.chmod(0o750)
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
        if os.getuid() == 0:
            os.chown(path, 33, 34)
    create(source, tmp_path / "a.layer", level=1, subsecond=True)
    return LayerPlace(str(tmp_path / "a.layer"), 0, (tmp_path / "a.layer").stat().st_size)


def test_a_directory_in_which_something_was_deleted_stays_what_it_is_below(tmp_path: Path) -> None:
    layer = make_layer(tmp_path)
    data = tmp_path / "data"
    mark = data / "root" / os.fsdecode(MARKS) / "outer" / "inner" / f"gone{HIDDEN.decode()}"
    mark.parent.mkdir(parents=True)
    mark.touch()
    with DataDirectory.open(str(data)).opened() as opened, opened_files([layer]) as layers:
        adapt(opened, layers, "bwrap", None, "w")
    inner = data / "root" / "outer" / "inner"
    deleted = (inner / "gone").lstat()
    assert stat.S_ISCHR(deleted.st_mode)
    assert deleted.st_rdev == 0
    assert not (data / "root" / os.fsdecode(MARKS)).exists()
    for path in (inner, inner.parent):
        facts = path.stat()
        assert facts.st_mtime_ns == LONG_AGO
        assert stat.S_IMODE(facts.st_mode) == 0o750
        if os.getuid() == 0:
            assert (facts.st_uid, facts.st_gid) == (33, 34)
