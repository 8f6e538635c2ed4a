"""What crashes left is removed on request, and nothing else."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.session import Session

DEAD = 2**22 + 1  # above every PID (proc(5), pid_max)


def test_prune_removes_what_crashes_and_flatimage_left_and_what_is_mounted_there(
    session: Session, image: Path
) -> None:
    session.output(image, "fim-exec", "true")
    app = session.tree.parent
    build = app / "abc123_20250101120000" / "instance"
    dead, living = build / str(DEAD), build / str(os.getpid())
    scratch, young = session.tree / "doctor.old", session.tree / "doctor.young"
    session.output("mkdir", "-p", dead / "mount", dead / "deep", living, scratch / "a", young)
    session.output("touch", "-d", "1 hour ago", scratch)
    session.output("mkdir", "upper", "outside")
    session.output("touch", "outside/precious")
    session.output("ln", "-s", session.directory / "work" / "outside", dead / "link")
    assert session.run("fuse-overlayfs", "-o", "lowerdir=upper", dead / "mount").returncode == 0
    assert len([point for point in session.mounts() if str(dead) in point]) == 1
    assert "2 directories removed" in session.output("fimctl", "prune")
    assert not dead.exists()
    assert not scratch.exists()
    assert living.exists()
    assert young.exists()
    assert (session.directory / "work" / "outside" / "precious").exists()
    assert "removed" not in session.output("fimctl", "prune")
    session.wait_until_clean()


def test_prune_follows_no_link_and_touches_nothing_of_another_users(
    new_session: Callable[..., Session],
) -> None:
    session = new_session()
    session.output("fimctl", "status")
    victim = session.directory / "work" / "victim" / str(DEAD)
    session.output("mkdir", "-p", victim / "precious")
    app = session.tree.parent
    session.output("mkdir", app / "abc_1")
    session.output("ln", "-s", victim.parent, app / "abc_1" / "instance")
    session.output("mkdir", "abc_2", "abc_2/instance", f"abc_2/instance/{DEAD}")
    session.output("ln", "-s", session.directory / "work" / "abc_2", app / "abc_2")
    if os.getuid() == 0:
        other = app / "abc_3" / "instance" / str(DEAD)
        other.mkdir(parents=True)
        subprocess.run(["chown", "-R", "12345", app / "abc_3"], check=True)
    assert session.output("fimctl", "prune") == "0 idle layers unmounted\n"
    assert (victim / "precious").exists()
    assert (session.directory / "work" / "abc_2" / "instance" / str(DEAD)).exists()
    assert os.getuid() != 0 or other.exists()
