"""Images start where FUSE is missing: in containers, and on machines of continuous integration."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fimd.dwarfs.write import create
from tests.support.account import PROJECT
from tests.support.layers import chain
from tests.support.session import Session, wait_for

NUMBERS = itertools.count()
FILES, SIZE = 3000, 20_000
WARNING = "there is no /dev/fuse, so layers are unpacked into "


class Container:
    """A container of bubblewrap's, with a /dev and a /tmp of its own: a session without a bus."""

    def __init__(self, session: Session, *options: str) -> None:
        self.session = session
        place, temporary = str(session.directory), session.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        os.chown(temporary, session.account.uid, session.account.gid)
        binds = {"/": "/", str(temporary): "/tmp", place: place}
        words = [word for part in binds.items() for word in ("--bind", *part)]
        words += ["--cap-add", "ALL"] if session.account.uid == 0 else []
        self.shell = session.start("bwrap", *words, "--dev", "/dev", *options, "sh", stdin=-1)

    @property
    def store(self) -> Path:
        """Where unpacked layers are kept."""
        return self.session.directory / "home" / ".cache" / "fimd" / "layers"

    def trees(self) -> list[str]:
        """The trees that are kept there."""
        return sorted(path.name for path in self.store.glob("sha256-*"))

    def start(
        self, *words: str | Path, variables: Mapping[str, str] | None = None
    ) -> "Callable[..., subprocess.CompletedProcess[str]]":
        """Start a command in the container, and return what waits for its end."""
        at = self.session.directory / "tmp" / str(next(NUMBERS))
        given = [f"{name}={value}" for name, value in (variables or {}).items()]
        command = shlex.join(["env", *given, *map(str, words)])
        assert self.shell.stdin is not None
        script = (
            f"({command} >{at}.out 2>{at}.err </dev/null; echo $? >{at}.new; mv {at}.new {at}) &"
        )
        self.shell.stdin.write(f"{script}\n".encode())
        self.shell.stdin.flush()

        def finish() -> "subprocess.CompletedProcess[str]":
            wait_for(at.exists, 60, f"the end of {words}")
            out, err = (Path(f"{at}.{kind}").read_text() for kind in ("out", "err"))
            return subprocess.CompletedProcess(words, int(at.read_text()), out, err)

        return finish

    def background(
        self, image: Path, script: str
    ) -> "Callable[..., subprocess.CompletedProcess[str]]":
        """Start a script in an image, once it has changed a file of that."""
        said = self.session.directory / "tmp" / "changed"
        change = "echo mine > /etc/release; touch /tmp/changed"
        finish = self.start(image, "fim-exec", "sh", "-c", f"{change}; {script}")
        wait_for(said.exists, 30, "the program")
        return finish

    def run(self, *words: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container to its end."""
        return self.start(*words, **options)()

    def output(self, *words: str | Path, **options: Any) -> str:
        """Run an image's program, which has to succeed with one warning, of FUSE."""
        done = self.run(*words, **options)
        assert done.returncode == 0, f"{done}\n{self.log()}"
        [line] = done.stderr.splitlines()
        assert WARNING in line
        return done.stdout

    def wait_until_idle(self) -> None:
        """Wait until no instance is left."""
        wait_for(lambda: json.loads(self.run("fimctl", "ps", "--json").stdout) == [], 20)

    def leave(self) -> None:
        """Have the daemon leave, and the container with it, if it has not yet."""
        assert self.shell.stdin is not None
        if not self.shell.stdin.closed:
            self.run("fimctl", "shutdown")
            self.shell.stdin.close()
        self.shell.wait(20)
        wait_for(lambda: not self.session.processes(), 20, "the end of the container")

    def log(self) -> str:
        """What the daemon said."""
        path = self.session.tree / "state" / "fimd.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def container(new_session: Callable[..., Session]) -> Container:
    """A container in which nothing was started yet."""
    return Container(new_session(has_bus=False, FIMD_IDLE="2"))


@pytest.fixture
def image(container: Container, busybox_image: Path) -> Path:
    """An image of the container's user."""
    return container.session.adopt(busybox_image, "app.flatimage")


def test_an_image_starts_and_is_unpacked_once(container: Container, image: Path) -> None:
    assert container.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    [tree] = container.trees()
    before = os.stat(container.store / tree / "tree" / "etc" / "release")
    container.output(image, "fim-exec", "sh", "-c", "echo mine > /etc/release; rm /bin/wc")
    script = "cat /etc/release; test -e /bin/wc || echo gone"
    assert container.output(image, "fim-exec", "sh", "-c", script) == "mine\ngone\n"
    after = os.stat(container.store / tree / "tree" / "etc" / "release")
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert container.trees() == [tree]


def test_changes_are_committed_and_seen_by_who_has_fuse(container: Container, image: Path) -> None:
    change = "echo mine > /etc/release; rm /bin/wc; mkdir /new; echo a > /new/file"
    container.output(image, "fim-exec", "sh", "-c", change)
    done = container.run(image, "fim-layer", "commit", "binary")
    assert done.returncode == 0, done
    look = "cat /etc/release /new/file; test -e /bin/wc || echo gone"
    assert container.output(image, "fim-exec", "sh", "-c", look) == "mine\na\ngone\n"
    assert len(container.trees()) == 2
    container.leave()
    assert container.session.output(image, "fim-exec", "sh", "-c", look) == "mine\na\ngone\n"


@pytest.mark.slow
def test_first_starts_at_the_same_time_unpack_once(container: Container, image: Path) -> None:
    copies = [container.session.adopt(image, f"copy{number}.flatimage") for number in range(3)]
    starts = [container.start(one, "fim-exec", "echo", "up") for one in (image, *copies)]
    assert [start().stdout for start in starts] == ["up\n"] * 4
    assert len(container.trees()) == 1
    assert not list(container.store.glob(".*"))
    log = [json.loads(line) for line in container.log().splitlines()]
    assert len([line for line in log if line["event"] == "layer unpacked"]) == 1


@pytest.fixture
def only_root() -> None:
    """To be asked for before a container, which is not to be left while it begins."""
    if os.getuid() != 0:
        pytest.skip("only root can mount an overlay on the host")


@pytest.fixture
def in_overlay(only_root: None, container: Container) -> Iterator[Container]:
    """The same in which everything lies on an overlay, over which the kernel writes no other."""
    session = container.session
    parts = [session.directory / "overlay" / name for name in ("lower", "upper", "work")]
    for part in parts:
        part.mkdir(parents=True)
        os.chown(part, session.account.uid, session.account.gid)
    lower, upper, work = parts
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    for name in ("work", "home"):
        place = session.directory / name
        below = [part / name for part in parts[1:]]
        for part in below:
            part.mkdir()
            os.chown(part, session.account.uid, session.account.gid)
        options = f"lowerdir={lower},upperdir={below[0]},workdir={below[1]}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place], check=True)
    yield container
    container.leave()
    for name in ("work", "home"):
        subprocess.run(["umount", session.directory / name], check=True)


def test_a_copy_stands_in_where_the_kernel_refuses_its_overlay(
    in_overlay: Container, busybox_image: Path
) -> None:
    container = in_overlay
    image = container.session.adopt(busybox_image, "app.flatimage")
    upper = image.parent / ".app.flatimage.data" / "root"
    change = (
        "echo mine > /etc/release; rm /bin/wc; mkdir /new; echo a > /new/file; mv /bin/ls /bin/dir;"
        "rm -r /usr; mkdir /usr"
    )
    done = container.run(image, "fim-exec", "sh", "-c", change)
    assert done.returncode == 0, done
    assert "each start copies what the image holds" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    wait_for(lambda: not (upper / "bin" / "busybox").exists(), 20, "the end of the copy")
    left = {str(path.relative_to(upper)) for path in upper.rglob("*") if not path.is_dir()}
    assert {"etc/release", "new/file", "bin/dir"} <= left
    look = "cat /etc/release /new/file; test -e /bin/wc -o -e /bin/ls || echo gone; ls -l /bin/dir"
    seen = container.output(image, "fim-exec", "sh", "-c", look)
    assert seen.startswith("mine\na\ngone\nlrwx")
    assert container.run(image, "fim-layer", "commit", "binary").returncode == 0
    assert container.output(image, "fim-exec", "sh", "-c", look) == seen
    container.leave()
    assert container.session.run(image, "fim-exec", "sh", "-c", look).stdout == seen


@pytest.fixture
def big_layer(container: Container, tmp_path: Path) -> Path:
    """A layer that takes some time to be unpacked."""
    (tmp_path / "big").mkdir()
    for number in range(FILES):
        (tmp_path / "big" / str(number)).write_bytes(os.urandom(SIZE))
    create(tmp_path / "big", tmp_path / "layer", level=1)
    return container.session.adopt(tmp_path / "layer", "big.layer")


@pytest.mark.slow
def test_who_is_killed_while_unpacking_leaves_nothing_that_is_used(
    container: Container, image: Path, big_layer: Path
) -> None:
    given = {"FIM_LAYERS": str(big_layer)}
    start = container.start(image, "fim-exec", "true", variables=given)
    wait_for(lambda: list(container.store.glob(f".*/tree/{FILES // 9}")), 30, "the first files")
    for pid in (container.session.daemon(), *container.session.named("unpack")):
        os.kill(pid, signal.SIGKILL)
    start()  # perhaps by another daemon
    script = "cat /[0-9]* | wc -c"
    said = container.output(image, "fim-exec", "sh", "-c", script, variables=given)
    assert int(said) == FILES * SIZE
    assert not list(container.store.glob(".*"))


@pytest.mark.slow
def test_a_damaged_layer_is_refused_with_its_place(container: Container, image: Path) -> None:
    [layer] = chain(image)
    with image.open("r+b") as file:
        file.seek(layer.offset + layer.size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    done = container.run(image, "fim-exec", "true")
    assert done.returncode == 125
    assert re.search(rf"{image}, section \S+, offset \d+: ", done.stderr), done.stderr
    assert container.trees() == []
    assert not list(container.store.glob(".*"))


def test_no_sandbox_shows_the_store(container: Container, image: Path) -> None:
    container.run(image, "fim-perms", "add", "home")
    container.output(image, "fim-exec", "true")
    [tree] = container.trees()
    cache = container.store.parent
    script = (
        f"ls -A {cache}/*; touch {cache}/layers/new; rm -r {cache}; mv {cache} {cache}-old;"
        f"mv {cache.parent} {cache.parent}-old; touch {cache.parent}/mine && echo seen"
    )
    done = container.run(image, "fim-exec", "sh", "-c", script)
    assert done.stdout == "seen\n", done
    assert [line for line in done.stderr.splitlines() if "can't rename" in line][1:], done
    assert (container.store / tree / "tree" / "bin" / "busybox").exists()
    assert not (container.store / "new").exists()
    assert (cache.parent / "mine").exists()


@pytest.mark.slow
def test_it_is_bounded_and_pruned(new_session: Callable[..., Session], busybox_image: Path) -> None:
    container = Container(new_session(has_bus=False, FIMD_IDLE="9", FIMD_STORE="3"))
    session = container.session
    for number in range(3):
        image = session.adopt(busybox_image, f"{number}.flatimage")
        change = f"dd if=/dev/urandom of=/number bs=1000 count={500 + number}"
        container.run(image, "fim-exec", "sh", "-c", change)
        assert container.run(image, "fim-layer", "commit", "binary").returncode == 0
        size = "wc -c < /number"
        assert container.output(image, "fim-exec", "sh", "-c", size) == f"{500 + number}000\n"
        kept = [int(path.read_text()) for path in container.store.glob("*/size")]
        assert sum(kept) <= 3 << 20
        assert container.run("fimctl", "ps").returncode == 0
    assert len(container.trees()) < 4
    running = container.background(image, "sleep 3; wc -c < /number")
    assert container.run("fimctl", "prune").returncode == 0
    assert len(container.trees()) == 2
    assert running().stdout == "502000\n"
    container.wait_until_idle()
    assert "2 directories removed that nobody uses" in container.run("fimctl", "prune").stdout
    assert container.trees() == []


def test_what_was_tampered_with_is_not_used(container: Container, image: Path) -> None:
    container.output(image, "fim-exec", "true")
    container.leave()
    shutil.rmtree(container.store.parent)
    elsewhere = container.session.directory / "tmp" / "elsewhere"
    elsewhere.mkdir()
    container.store.parent.symlink_to(elsewhere)
    again = Container(container.session)
    done = again.run(image, "fim-exec", "true")
    assert done.returncode == 125
    assert "set XDG_CACHE_HOME to " in done.stderr


@pytest.mark.slow
def test_another_daemon_takes_over_what_a_killed_one_has_shown(
    container: Container, image: Path
) -> None:
    script = "sleep 5; cat /etc/release; ls /bin/busybox"
    running = container.background(image, script)
    os.kill(container.session.daemon(), signal.SIGKILL)
    assert container.output(image, "fim-exec", "cat", "/etc/release") == "mine\n"
    assert running().stdout == "mine\n/bin/busybox\n"
    container.wait_until_idle()
    assert container.run("fimctl", "prune").returncode == 0
    assert container.trees() == []


@pytest.mark.slow
def test_another_daemon_takes_over_a_copy(in_overlay: Container, busybox_image: Path) -> None:
    container = in_overlay
    image = container.session.adopt(busybox_image, "app.flatimage")
    script = "rm /bin/wc; sleep 5; cat /etc/release"
    running = container.background(image, script)
    os.kill(container.session.daemon(), signal.SIGKILL)
    assert container.output(image, "fim-exec", "ls", "/bin/busybox") == "/bin/busybox\n"
    assert running().stdout == "mine\n"
    upper = image.parent / ".app.flatimage.data" / "root"
    wait_for(lambda: not (upper / "bin" / "busybox").exists(), 20, "the end of the copy")
    look = "cat /etc/release; test -e /bin/wc || echo gone"
    assert container.output(image, "fim-exec", "sh", "-c", look) == "mine\ngone\n"


def test_the_doctor_says_which_way_a_start_takes(container: Container) -> None:
    done = container.run("fimctl", "doctor", "--json")
    groups = json.loads(done.stdout)
    [start] = [finding for finding in groups["backends"] if finding["name"] == "start"]
    assert start["verdict"] == "note"
    assert start["detail"].startswith(f"layers are unpacked into {container.store}, since there is")
    assert "--device /dev/fuse" in start["remedy"]
    assert done.returncode == 0, groups


@pytest.mark.slow
def test_what_needs_fuse_is_left_out_with_the_one_warning(
    container: Container, image: Path
) -> None:
    container.run(image, "fim-casefold", "on")
    container.run(image, "fim-overlay", "set", "unionfs")
    assert container.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    done = container.run(image, "fim-exec", "cat", "/ETC/release")
    assert "no case-insensitive view, and of overlays the kernel's alone" in done.stderr
    assert done.returncode == 1


@pytest.fixture
def bare_root(in_overlay: Container) -> Iterator[Container]:
    """Root of a container that may make no namespaces and mount nothing."""
    if in_overlay.session.account.uid != 0:
        pytest.skip("for root alone")
    in_overlay.leave()
    container = Container(in_overlay.session, *("setpriv", "--bounding-set", "-sys_admin"))
    yield container
    container.leave()


def test_root_without_any_namespace_gets_a_chroot_if_asked(
    bare_root: Container, busybox_image: Path
) -> None:
    image = bare_root.session.adopt(busybox_image, "app.flatimage")
    done = bare_root.run(image, "fim-exec", "true")
    assert done.returncode == 125
    assert "'fimctl run --no-sandbox'" in done.stderr
    groups = json.loads(bare_root.run("fimctl", "doctor", "--json").stdout)
    [start] = [finding for finding in groups["backends"] if finding["name"] == "start"]
    assert "--no-sandbox" in start["detail"]
    change = "echo mine > /etc/release; rm /bin/wc; echo > /dev/null; [ -c /dev/null ] && exit 3"
    done = bare_root.run("fimctl", "run", "--no-sandbox", image, "sh", "-c", change)
    assert done.returncode == 3, done
    assert "without a sandbox" in done.stderr
    look = "cat /etc/release; test -e /bin/wc || echo gone"
    done = bare_root.run("fimctl", "run", "--no-sandbox", image, "sh", "-c", look)
    assert done.stdout == "mine\ngone\n", done
    upper = image.parent / ".app.flatimage.data" / "root"
    assert not (upper / "bin" / "busybox").exists()
    assert not (upper / "dev" / "null").exists()


def test_who_is_not_root_is_told_what_to_do_instead(container: Container, image: Path) -> None:
    if container.session.account.uid == 0:
        pytest.skip("for plain users alone")
    done = container.run("fimctl", "run", "--no-sandbox", image, "true")
    assert done.returncode != 0
    assert "only root can do without a sandbox: allow this user" in done.stderr


def test_it_starts_in_a_container_of_podman(open_directory: Path, busybox_image: Path) -> None:
    podman = ["podman", "run", "--rm", "--network", "none", "--rootfs", "/:O"]
    if os.getuid() != 0 or shutil.which("podman") is None:
        pytest.skip("there is no podman, or this is not root")
    if subprocess.run([*podman, "true"], capture_output=True, check=False).returncode:
        pytest.skip("podman can't run here")
    fimctl = f"cd {PROJECT} && {sys.executable} -P -m fimctl"
    data = open_directory / "podman"
    words = f"run --no-sandbox --data {data} {busybox_image} cat /etc/release"
    done = subprocess.run(
        [*podman, "sh", "-c", f"{fimctl} {words}"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "small\n", done
