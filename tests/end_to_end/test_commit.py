"""Commits of a real session: what an application sees stays the same, whatever happens."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.overlays import INSTALLED, needs_unionfs
from tests.support.session import Session, wait_for
from tests.support.tree import Tree, difference, seen

FIRST = r"""
mkdir -p /w/kept/in /w/opaque/sub/deep /w/gone/a /w/turned /w/old /etc/conf
for f in kept/a kept/in/b opaque/old opaque/both opaque/sub/deep/x gone/a/b turned/inner old/f
do echo $f > /w/$f; done
echo one > /w/file; ln -s file /w/link; ln /w/file /w/twin; mkfifo /w/fifo
touch -d '2001-02-03 04:05:06' /w/kept/in /w/file; chmod 4711 /w/kept/a; chmod 1770 /w/old
echo strange > "$(printf '/w/new\nline')"; echo strange > "$(printf '/w/not-\377-utf8')"
mkdir /w/empty; printf '' > /w/kept/nothing
"""
SECOND = r"""
rm /w/file /w/kept/in/b /etc/release; rm -r /w/gone /w/opaque /w/turned /w/link; mv /w/old /w/young
mkdir -m 750 /w/opaque; echo new > /w/opaque/both; mkdir /w/opaque/sub; echo y > /w/opaque/sub/y
echo file > /w/turned; mkdir /w/link; echo in > /w/link/in; rm "$(printf '/w/new\nline')"
rm "$(printf '/w/not-\377-utf8')"; echo again > "$(printf '/w/not-\376-utf8')"
chmod 700 /w/kept; touch -d '1999-01-01 00:00:00' /w/kept; rmdir /w/empty; rm /w/fifo
ln /w/opaque/both /w/both; mkfifo /w/pipe; mkdir /w/empty2; echo more >> /w/kept/a; rm -r /etc/conf
"""
TOPS = ("w", "etc")


def change(session: Session, image: Path, script: str, **variables: str) -> None:
    """Run a script in the image."""
    session.output(image, "fim-root", "sh", "-c", f"set -e\n{script}", variables=variables)


def commit(session: Session, image: Path, mode: str, **variables: str) -> str:
    """Commit; a file goes to its own directory."""
    target = [str(image.with_name("own.layer"))] if mode == "file" else []
    return session.output(image, "fim-layer", "commit", mode, *target, variables=variables)


def differs(before: Tree, now: Tree, *overlays: str) -> dict[bytes, object]:
    """Return what is different; which names are one file only where no overlay is unionfs."""
    return dict(difference(before, now, links="unionfs" not in overlays))


def data_of(image: Path) -> Path:
    """The image's data directory."""
    return image.with_name(f".{image.name}.data")


@pytest.mark.parametrize(
    ("overlay", "mode"),
    [
        ("bwrap", "file"),
        ("overlayfs", "layer"),
        pytest.param("unionfs", "binary", marks=needs_unionfs),
    ],
)
def test_what_an_application_sees_does_not_change_by_a_commit_under_any_overlay(
    session: Session, image: Path, overlay: str, mode: str
) -> None:
    fast = {"FIM_COMPRESSION_LEVEL": "1"}
    change(session, image, FIRST, FIM_OVERLAY=overlay)
    before = seen(session, image, *TOPS, FIM_OVERLAY=overlay)
    commit(session, image, "binary", **fast)
    for other in INSTALLED:
        now = seen(session, image, *TOPS, FIM_OVERLAY=other)
        assert differs(before, now, overlay, other) == {}, other
    change(session, image, SECOND, FIM_OVERLAY=overlay)
    if session.account.uid == 0:
        change(session, image, "chown 33:34 /w/both /w/kept", FIM_OVERLAY=overlay)
    before = seen(session, image, *TOPS, FIM_OVERLAY=overlay)
    commit(session, image, mode, **fast)
    root = data_of(image) / "root"
    assert list(root.iterdir()) == []
    environment = {"FIM_LAYERS": str(image.with_name("own.layer"))} if mode == "file" else {}
    for other in INSTALLED:
        environment["FIM_OVERLAY"] = other
        now = seen(session, image, *TOPS, **environment)
        assert differs(before, now, overlay, other) == {}, other
    session.wait_until_clean()


def test_what_is_in_the_image_needs_no_data_directory_and_travels_with_it(
    session: Session, image: Path
) -> None:
    change(session, image, FIRST)
    before = seen(session, image, *TOPS)
    commit(session, image, "binary")
    session.remove_data(data_of(image))
    copy = session.adopt(image, "elsewhere.flatimage")
    assert difference(before, seen(session, copy, *TOPS)) == {}


def test_each_way_to_commit_says_what_flatimage_says(session: Session, image: Path) -> None:
    def texts(output: str) -> list[str]:
        return [line.split("::", 3)[-1] for line in output.splitlines()]

    own = image.with_name("own.layer")
    managed = data_of(image) / "layers" / "layer-000.layer"
    start = ["Gathering files to compress...", "Compression level: '7'"]
    change(session, image, "echo 1 > /1")
    assert texts(commit(session, image, "binary")) == [
        *start,
        f"Compress filesystem to '{image}'",
        f"Included novel layer from file '{image}'",
        "Filesystem appended to binary without errors",
        "Finished erasing files",
    ]
    change(session, image, "echo 2 > /2")
    assert texts(commit(session, image, "layer")) == [
        *start,
        f"Compress filesystem to '{managed}'",
        "Layer number: 0",
        f"Layer path: {managed}",
        f"Layer saved to '{managed}'",
        "Finished erasing files",
    ]
    change(session, image, "echo 3 > /3")
    assert texts(commit(session, image, "file"))[-3:] == [
        f"Layer saved to '{own}'",
        f"To see its content again: FIM_LAYERS={own}, or 'fim-layer add {own}'",
        "Finished erasing files",
    ]
    assert "no layer was made" in commit(session, image, "layer")
    listed = session.output(image, "fim-layer", "list", variables={"FIM_LAYERS": str(own)})
    rows = [line.split(":", 3) for line in listed.splitlines()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert [row[3] for row in rows] == [str(image), str(image), str(own), str(managed)]
    assert int(rows[1][1]) + int(rows[1][2]) == image.stat().st_size
    assert rows[2][1:3] == ["0", str(own.stat().st_size)]


NONSENSE: tuple[tuple[list[str], str], ...] = (
    ([], "Missing op for 'fim-layer' (create,add,commit,list)"),
    (["nonsense"], "Invalid layer operation"),
    (["create", "x"], "create requires exactly two arguments (/path/to/dir "),
    (["create", "/nowhere", "x"], "Source directory '/nowhere' does not exist"),
    (["create", "/etc/passwd", "x"], "Source '/etc/passwd' is not a directory"),
    (["add"], "add requires exactly one argument (/path/to/file.layer)"),
    (["add", "/nowhere"], "Failed to open input file '/nowhere'"),
    (["add", "/etc/passwd"], "/etc/passwd is no layer"),
    (["commit"], "Missing op for 'commit' (binary,layer,file)"),
    (["commit", "nonsense"], "Invalid commit operation"),
    (["commit", "file"], "Missing path for 'file' operation"),
    (["commit", "layer", "x"], "Trailing arguments for fim-layer commit: ['x',]"),
    (["commit", "file", "/etc/passwd"], "Destination file already exists"),
    (["list", "x"], "Trailing arguments for fim-layer list: ['x',]"),
)


def test_what_makes_no_sense_is_refused_in_flatimages_words(session: Session, image: Path) -> None:
    before = image.read_bytes()
    for words, text in NONSENSE:
        done = session.run(image, "fim-layer", *words)
        assert done.returncode == 125, words
        assert text in done.stderr, words
    assert image.read_bytes() == before


def test_a_layer_is_made_of_a_directory_or_of_a_list_and_added(
    session: Session, image: Path
) -> None:
    source = session.directory / "work" / "source"
    session.run("sh", "-c", "mkdir -p source/sub; echo a > source/a; echo b > source/sub/b")
    made = image.with_name("made.layer")
    done = session.run(
        image, "fim-layer", "create", source, made, variables={"FIM_COMPRESSION_LEVEL": "12"}
    )
    assert done.returncode == 0, done.stderr
    assert "using 9" in done.stderr
    assert "Compression level: '9'" in done.stdout
    assert "Filesystem created without errors" in done.stdout
    added = session.output(image, "fim-layer", "add", made)
    assert f"Included novel layer from file '{made}'" in added
    assert session.output(image, "fim-exec", "cat", "/sub/b") == "b\n"
    session.run("sh", "-c", "echo sub/b > list")
    session.output("fimctl", "layer", "create", "--files", "list", "source", "some.layer")
    shown = session.output("fimctl", "layer", "diff", "some.layer")
    assert "/sub/b" in shown
    assert "+ /a\n" not in shown


def test_a_commit_is_refused_with_the_pids_while_instances_run(
    session: Session, image: Path
) -> None:
    running = session.background(image, "echo x > /x; sleep 60")
    done = session.run(image, "fim-layer", "commit", "binary")
    assert done.returncode == 125
    assert str(running.pid) in done.stderr
    running.kill()
    running.wait()
    wait_for(lambda: session.objects("ps") == [], what="the instance's end")
    assert "appended" in commit(session, image, "binary")


def slow_change(session: Session, image: Path, mebibytes: int = 40) -> None:
    """Put something into the upper that takes a while to compress."""
    change(session, image, f"dd if=/dev/urandom of=/big bs=1M count={mebibytes} 2>/dev/null")


def test_of_two_clients_that_commit_at_once_one_succeeds(session: Session, image: Path) -> None:
    slow_change(session, image, 16)
    clients = [
        session.start(
            *(image, "fim-layer", "commit", "layer"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [client.communicate(timeout=100)[1].decode() for client in clients]
    codes = [client.returncode for client in clients]
    assert sorted(codes) == [0, 125], said
    assert "going on" in said[codes.index(125)]
    assert len(list((data_of(image) / "layers").iterdir())) == 1


def test_while_a_commit_is_going_on_nothing_starts_there_and_ctrl_c_undoes_it(
    session: Session, image: Path
) -> None:
    slow_change(session, image)
    before = image.read_bytes()
    client = session.start(image, "fim-layer", "commit", "binary", stdout=subprocess.PIPE)
    wait_for(lambda: worker_of(session), what="the worker")
    done = session.run(image, "fim-exec", "true")
    assert done.returncode == 125
    assert "commit" in done.stderr
    time.sleep(0.5)
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=30)
    assert client.returncode == 130
    wait_for(lambda: not worker_of(session), what="the worker's end")
    assert image.read_bytes() == before
    assert session.output(image, "fim-exec", "sh", "-c", "wc -c < /big").strip() == str(40 << 20)


def worker_of(session: Session) -> int:
    """The PID of a job's worker, 0 where there is none."""
    workers = [pid for pid, words in session.processes().items() if "fimd.jobs.worker" in words]
    return workers[0] if workers else 0


@pytest.mark.parametrize(
    ("mode", "victim"), [("binary", "worker"), ("layer", "daemon"), ("layer", "client")]
)
def test_a_commit_that_is_killed_loses_nothing_and_leaves_nothing(
    session: Session, image: Path, mode: str, victim: str
) -> None:
    change(session, image, FIRST)
    slow_change(session, image, 12)
    before = seen(session, image, *TOPS, "big")
    for delay in (0.05, 0.5, 0.8, 1.1):
        client = session.start(
            *(image, "fim-layer", "commit", mode),
            variables={"FIM_COMPRESSION_LEVEL": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        worker = wait_for(lambda: worker_of(session), what="the worker")
        daemon = session.daemon()
        time.sleep(delay)
        with suppress(ProcessLookupError):  # it was quicker
            victims = {"worker": worker, "daemon": daemon, "client": client.pid}
            os.kill(victims[victim], signal.SIGKILL)
        client.communicate(timeout=30)
        wait_for(lambda: not worker_of(session), what="the worker's end")
        assert difference(before, seen(session, image, *TOPS, "big")) == {}, delay
        assert list((data_of(image) / "tmp").iterdir()) == []
        # so that there is something to commit; what was cut short in the image is told
        assert session.run(image, "fim-root", "touch", "/again").returncode == 0
    assert session.run(image, "fim-layer", "commit", mode).returncode == 0
    assert difference(before, seen(session, image, *TOPS, "big")) == {}


def test_files_that_their_owner_may_not_read_are_committed_as_they_are(
    session: Session, image: Path
) -> None:
    change(session, image, "echo secret > /shadow; mkdir /closed; echo x > /closed/x")
    change(session, image, "chmod 000 /shadow /closed")
    assert commit(session, image, "binary")
    session.remove_data(data_of(image))
    shown = session.output(image, "fim-root", "stat", "-c", "%a %s", "/shadow", "/closed/x")
    assert shown == "0 7\n644 2\n"


def test_layers_are_squashed_removed_and_exported(session: Session, image: Path) -> None:
    change(session, image, FIRST)
    commit(session, image, "binary")
    change(session, image, SECOND)
    commit(session, image, "binary")
    for number in range(3):
        change(session, image, f"echo {number} > /w/{number}; rm -f /w/$(({number} - 1))")
        commit(session, image, "layer")
    before = seen(session, image, *TOPS)
    size = image.stat().st_size
    session.output("fimctl", "layer", "squash", image, "1", "2")
    session.output("fimctl", "layer", "squash", image, "2", "4")
    rows = session.output(image, "fim-layer", "list").splitlines()
    assert len(rows) == 3
    assert rows[2].endswith("layer-002.layer")
    assert image.stat().st_size < size
    for overlay in INSTALLED:
        now = seen(session, image, *TOPS, FIM_OVERLAY=overlay)
        assert differs(before, now, overlay) == {}, overlay
    session.output("fimctl", "layer", "export", image, "2", "top.layer")
    session.output("fimctl", "layer", "remove", "--yes", image)
    assert len(session.output(image, "fim-layer", "list").splitlines()) == 2
    top = str(image.with_name("top.layer"))
    assert difference(before, seen(session, image, *TOPS, FIM_LAYERS=top)) == {}
    mixed = session.run("fimctl", "layer", "squash", image, "0", "2", variables={"FIM_LAYERS": top})
    assert mixed.returncode == 125
    assert "all in the image" in mixed.stderr


def test_what_was_changed_is_shown_and_thrown_away_after_asking(
    session: Session, image: Path
) -> None:
    change(session, image, "mkdir /new; echo x > /new/x; rm /etc/release")
    shown = session.output("fimctl", "upper", "status", image)
    assert {"+ /new/x", "- /etc/release"} <= set(shown.splitlines())
    refused = session.run("fimctl", "upper", "reset", image)
    assert refused.returncode == 125
    assert "--yes" in refused.stderr
    session.output("fimctl", "upper", "reset", "--yes", image)
    assert session.output("fimctl", "upper", "status", image) == "nothing was changed\n"
    assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"


@pytest.mark.parametrize("overlay", INSTALLED)
def test_what_was_written_is_shown_whatever_its_size_and_second_and_a_copy_is_not(
    session: Session, image: Path, overlay: str
) -> None:
    session.output(image, "fim-overlay", "set", overlay)
    change(session, image, "echo one >/file; echo one >/other")
    session.output(image, "fim-layer", "commit", "layer")
    change(session, image, "echo two >/file; chmod 600 /other; chmod 644 /other")
    shown = session.output("fimctl", "upper", "status", image)
    assert shown.splitlines()[:-1] == ["~ /file"]


def test_external_layers_come_in_their_order_and_what_is_none_is_skipped_by_name(
    session: Session, image: Path
) -> None:
    folder = session.directory / "work" / "layers"
    session.run("mkdir", folder)
    for name in ("b", "a", "c"):
        session.run("sh", "-c", f"mkdir -p s-{name}; echo {name} > s-{name}/which")
        session.output("fimctl", "layer", "create", f"s-{name}", f"layers/{name}.layer")
    session.run("sh", "-c", "echo nonsense > layers/broken; mv layers/c.layer c.layer")

    def which(*entries: Path) -> str:
        variables = {"FIM_LAYERS": ":".join(map(str, entries))}
        done = session.run(image, "fim-exec", "cat", "/which", variables=variables)
        assert done.returncode == 0, done.stderr
        assert all("Skipping" in line for line in done.stderr.splitlines())
        return done.stdout

    assert which(folder) == "b\n"
    assert which(folder, folder.with_name("c.layer")) == "c\n"
    assert which(folder.with_name("c.layer"), folder) == "b\n"
    assert which(Path("/nowhere"), folder / "a.layer") == "a\n"
    listed = session.run(image, "fim-layer", "list", variables={"FIM_LAYERS": str(folder)})
    assert f"Skipping invalid dwarfs filesystem '{folder}/broken'" in listed.stderr
    assert len(listed.stdout.splitlines()) == 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("overlay", "count"),
    [
        *((overlay, 60) for overlay in INSTALLED),
        *(pytest.param(overlay, 300, marks=pytest.mark.slow) for overlay in INSTALLED),
        *(pytest.param(overlay, 600, marks=pytest.mark.slow) for overlay in INSTALLED),
    ],
)
def test_many_layers_stack_and_run(session: Session, image: Path, overlay: str, count: int) -> None:
    make_many(session, count)
    folder = str(session.directory / "work" / "many")
    variables = {"FIM_LAYERS": folder, "FIM_OVERLAY": overlay}
    script = "ls /many | wc -l"
    done = session.run(image, "fim-exec", "sh", "-c", script, variables=variables, seconds=300)
    assert (done.returncode, done.stdout.strip()) == (0, str(count)), done.stderr
    if overlay == "bwrap" and count > 500:
        for text in ("takes 500 layers", "squash", "using "):
            assert text in done.stderr
    else:
        assert done.stderr == ""
    wait_for(lambda: session.objects("ps") == [], seconds=60, what="the instance's release")
    session.output("fimctl", "prune")
    session.wait_until_clean(120)


@pytest.mark.parametrize("most", ["200:20000", "200:200"])
def test_layers_may_take_more_descriptors_than_a_login_has_and_no_more_than_allowed(
    session: Session, image: Path, most: str
) -> None:
    fimd = session.directory / "bin" / "fimd"
    fimd.write_text(fimd.read_text().replace("exec ", f"exec prlimit --nofile={most} "))
    make_many(session, 100)
    variables = {"FIM_LAYERS": str(session.directory / "work" / "many")}
    done = session.run(image, "fim-exec", "sh", "-c", "ls /many | wc -l", variables=variables)
    if most == "200:20000":
        assert (done.returncode, done.stdout.strip()) == (0, "100"), done.stderr
    else:
        assert done.returncode == 125
        assert "files open and may have 200: end some instances" in done.stderr
        assert "fimctl layer squash" in done.stderr
        assert session.output(image, "fim-exec", "cat", "/etc/release") == "small\n"
    session.wait_until_clean(60)


def make_many(session: Session, count: int) -> None:
    """Make layers of one small file each."""
    session.run("mkdir", "many", "source", "source/many")
    source = session.directory / "work" / "source" / "many"
    from fimd.dwarfs.write import create

    for number in range(count):
        (source / f"{number}").write_text("x")
        create(source.parent, session.directory / "work" / "many" / f"{number:03}", level=0)
        (source / f"{number}").unlink()
    session.run("chmod", "-R", "a+rX", "many")
