"""An overlay that can't be had is replaced by a FUSE overlay, with one warning that says why.

`fimctl doctor` says so beforehand.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Account
from tests.support.overlays import FALLBACK, needs_unionfs
from tests.support.programs import all_but
from tests.support.session import Session, wait_for
from tests.support.tmpfs import tmpfs

FILTER = Path(__file__).parent.parent / "support" / "refusing.py"


def verdicts(session: Session, *words: str | Path, **variables: str) -> dict[str, dict[str, str]]:
    """What doctor finds of overlays, by name."""
    done = session.run("fimctl", "doctor", "--json", *words, variables=variables)
    groups: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return {item["name"]: item for item in groups["backends"]}


REFUSED = "kernel overlay: "


def check_fallback(
    session: Session,
    image: Path,
    refused: str,
    why: str,
    other: str = FALLBACK,
    **variables: str,
) -> None:
    """Run a program by another overlay than the one asked for, and look at what it left."""
    variables["FIM_OVERLAY"] = refused
    done = session.run(
        *(image, "fim-exec", "sh", "-c", "echo changed > /etc/release; cat /etc/release"),
        variables=variables,
    )
    assert (done.returncode, done.stdout) == (0, "changed\n"), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"the overlay {refused} was refused" in done.stderr
    assert why in done.stderr
    assert f"using {other}" in done.stderr


def test_without_user_namespaces_a_plain_user_is_told_what_to_do(
    new_session: Callable[..., Session], account: Account, busybox_image: Path
) -> None:
    if account.uid == 0:
        pytest.skip("root needs none")
    if os.getuid() != 0:
        pytest.skip("only root can filter system calls and still start fusermount3")
    become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--"]
    session = new_session(wrap=[sys.executable, str(FILTER), "--unshare", *become])
    image = session.adopt(busybox_image, "app.flatimage")
    done = session.run(image, "fim-exec", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "no namespace for mounts can be made here (unshare" in done.stderr
    assert "Operation not permitted): allow this user to make user namespaces" in done.stderr


def test_doctor_tells_of_user_namespaces_beforehand(session: Session, account: Account) -> None:
    if account.uid == 0 or os.getuid() != 0:
        pytest.skip("root needs none, and only root can filter system calls")
    become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--"]
    wrap = [sys.executable, str(FILTER), "--unshare", *become]
    process = session.start(
        *wrap,
        *("fimctl", "doctor", "--json"),
        user=0,
        group=0,
        stdout=subprocess.PIPE,
    )
    output, _ = process.communicate(timeout=30)
    found = {item["name"]: item for item in json.loads(output)["backends"]}
    assert found["namespace"]["verdict"] == "problem"
    assert "Operation not permitted" in found["namespace"]["detail"]
    assert "allow this user to make user namespaces" in found["namespace"]["remedy"]


@pytest.fixture
def rejected(session: Session, account: Account) -> Iterator[Path]:
    """A directory that the kernel's overlay takes for no upper: one of an overlay."""
    if os.getuid() != 0:
        pytest.skip("only root can mount")
    base = session.directory / "nested"
    for name in ("lower", "upper", "work", "merged"):
        (base / name).mkdir(parents=True)
    options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
    point = base / "merged"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, point], check=True)
    try:
        os.chown(point, account.uid, account.gid)
        yield point
        wait_for(lambda: not session.leftovers(), what="the end of its users")
    finally:
        subprocess.run(["umount", point], check=True)


def test_an_upper_on_a_filesystem_that_the_kernels_overlay_rejects(
    session: Session, image: Path, rejected: Path
) -> None:
    found = verdicts(session, image, FIM_DIR_DATA=str(rejected / "data"))
    assert found["overlay bwrap"]["verdict"] == "ok"
    assert found["bwrap for changes"]["verdict"] == "note"
    assert str(rejected) in found["bwrap for changes"]["detail"]
    assert f"{FALLBACK} stands in" in found["bwrap for changes"]["remedy"]
    assert found[f"{FALLBACK} for changes"]["verdict"] == "ok"
    assert os.listdir(rejected) == []
    done = session.run(image, "fim-exec", "true", variables={"FIM_DIR_DATA": str(rejected / "d")})
    assert done.returncode == 0, done
    data = str(rejected / "data")
    check_fallback(
        session,
        image,
        "bwrap",
        "kernel overlay: it can't keep changes on the file system of",
        FIM_DIR_DATA=data,
    )
    assert (rejected / "data" / "root" / "etc" / "release").read_text() == "changed\n"


@needs_unionfs
def test_a_fuse_upper(session: Session, image: Path) -> None:
    branch, point = (session.directory / "work" / name for name in ("branch", "point"))
    for directory in (branch, point):
        directory.mkdir()
        os.chown(directory, session.account.uid, session.account.gid)
    union = session.start("unionfs", "-f", "-o", "cow", f"{branch}=RW", point)
    wait_for(lambda: str(point) in Path("/proc/self/mountinfo").read_text())
    try:
        data = f"{point}/data"
        found = verdicts(session, image, FIM_DIR_DATA=data)
        assert found["bwrap for changes"]["verdict"] == "note"
        check_fallback(session, image, "bwrap", REFUSED, FIM_DIR_DATA=data)
    finally:
        session.run("fimctl", "shutdown", "--kill")
        subprocess.run(["umount", "--lazy", point], check=os.getuid() == 0)
        union.kill()
        union.wait()


UNIONFS = ("unionfs", "unionfs-fuse")
MISSING = {
    # what is not installed, what is asked for, and what stands in for it
    "fuse-overlayfs": (("fuse-overlayfs",), "overlayfs", "unionfs"),
    "unionfs-fuse": (UNIONFS, "unionfs", "overlayfs"),
}


@pytest.fixture(params=[pytest.param("fuse-overlayfs", marks=needs_unionfs), "unionfs-fuse"])
def lacking(
    request: pytest.FixtureRequest, new_session: Callable[..., Session]
) -> tuple[Session, str, str, str]:
    """A session without a program, its name, the overlay that it is, and that which stands in."""
    missing, asked, other = MISSING[request.param]
    bare = all_but(new_session().directory / "programs", *missing)
    session = new_session(PATH=str(bare))
    for name in ("fimctl", "fimd"):
        (bare / name).unlink(missing_ok=True)
        (bare / name).symlink_to(session.directory / "bin" / name)
    return session, request.param, asked, other


def test_an_overlay_that_is_not_installed(
    lacking: tuple[Session, str, str, str], busybox_image: Path
) -> None:
    session, missing, asked, other = lacking
    image = session.adopt(busybox_image, "app.flatimage")
    check_fallback(session, image, asked, "not installed", other)
    found = verdicts(session, image)
    assert found[f"overlay {asked}"]["verdict"] == "note"
    assert f"install {missing}" in found[f"overlay {asked}"]["remedy"]
    assert f"{other} stands in" in found[f"overlay {asked}"]["remedy"]


def test_the_case_insensitive_view_lies_over_the_overlay_that_stands_in(
    lacking: tuple[Session, str, str, str], busybox_image: Path
) -> None:
    session, _, asked, other = lacking
    image = session.adopt(busybox_image, "app.flatimage")
    session.output(image, "fim-overlay", "set", asked)
    session.output(image, "fim-casefold", "on")
    script = "echo kept > /File; cat /FILE; rm /ETC/release; ls /etc"
    done = session.run(image, "fim-exec", "sh", "-c", script)
    assert done.stdout.splitlines()[0] == "kept"
    assert "release" not in done.stdout
    assert f"using {other}" in done.stderr


def test_no_overlay_that_could_stand_in(
    new_session: Callable[..., Session], busybox_image: Path
) -> None:
    bare = all_but(new_session().directory / "programs", "fuse-overlayfs", *UNIONFS)
    session = new_session(PATH=str(bare))
    for name in ("fimctl", "fimd"):
        (bare / name).unlink(missing_ok=True)
        (bare / name).symlink_to(session.directory / "bin" / name)
    image = session.adopt(busybox_image, "app.flatimage")
    assert session.output(image, "fim-exec", "echo", "up") == "up\n"
    assert session.output(image, "fim-casefold", "on") == ""
    assert session.output(image, "fim-exec", "cat", "/ETC/Release") == "small\n"
    done = session.run(image, "fim-exec", "true", variables={"FIM_OVERLAY": "overlayfs"})
    assert done.returncode == 125
    assert "needs fuse-overlayfs, which is not installed" in done.stderr


def test_where_the_runtime_tree_is_mounted_noexec_by_now_the_images_own_shell_does(
    session: Session, image: Path
) -> None:
    with tmpfs(session.directory / "fim", "64m") as point:
        os.chown(point, session.account.uid, session.account.gid)
        assert session.output(image, "fim-exec", "echo", "one") == "one\n"
        subprocess.run(["mount", "-o", "remount,bind,noexec", point], check=True, timeout=60)
        assert session.output(image, "fim-exec", "echo", "two") == "two\n"
        session.output("fimctl", "shutdown")
        wait_for(lambda: session.processes() == {}, what="the daemon's end")
