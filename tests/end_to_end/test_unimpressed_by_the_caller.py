"""What a caller has of its own is its program's, inside, and keeps no image from starting."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.session import Session, wait_for

SHADOWED = ("re", "struct", "typing", "asyncio", "socket", "json", "argparse", "site", "fimd")


@pytest.fixture
def shadows(session: Session) -> Path:
    """A directory of modules that nobody wants to import."""
    place = session.directory / "work" / "shadows"
    place.mkdir()
    for name in SHADOWED:
        (place / f"{name}.py").write_text('raise SystemExit("shadow")\n')
    return place


# words


@pytest.mark.parametrize("overlay", ["bwrap", "overlayfs"])
@pytest.mark.parametrize("count", [8_000, 8_900, 9_000, 20_000, 90_000])
def test_as_many_words_as_the_kernel_takes_arrive(
    session: Session, image: Path, overlay: str, count: int
) -> None:
    script = 'for last; do :; done; echo "$# [$1] [$2] [$last]"'
    words = ["", "a  b", *map(str, range(count)), ""]
    variables = {"FIM_OVERLAY": overlay}
    said = session.output(
        *(image, "fim-exec", "sh", "-c", script, "sh"), *words, variables=variables
    )
    assert said == f"{count + 3} [] [a  b] []\n"


def test_words_arrive_in_every_way_to_start(session: Session, image: Path) -> None:
    words = ("sh", "-c", "echo $#", "sh", *map(str, range(9500)))
    assert session.output(image, "fim-root", *words) == "9500\n"
    assert session.output("fimctl", "run", image, *words) == "9500\n"
    session.output(image, "fim-perms", "set", "processes")
    assert session.output(image, "fim-exec", *words) == "9500\n"
    assert session.run(image, "fim-exec", "sh", "-c", "exit 7", *words).returncode == 7


def test_what_is_too_long_is_told_as_that(session: Session, image: Path) -> None:
    given = len("\0".join(f"{key}={value}" for key, value in session.environment.items()))
    room = 2 * 1024 * 1024 - given - 8 * len(session.environment)
    words = ["x" * 1000] * ((room - 1500) // 1009)
    done = session.run("fimctl", "run", image, "true", *words)
    assert done.returncode == 125
    assert "too long for this kernel" in done.stderr, done.stderr


def test_a_large_environment_arrives(session: Session, image: Path) -> None:
    variables = {f"V{number}": "" for number in range(5_000)}
    variables |= {"LONG": "x" * (128 * 1024 - 6)}
    script = "env | grep -c '^V[0-9]'; echo ${#LONG}"
    said = session.output(image, "fim-exec", "sh", "-c", script, variables=variables)
    assert said.split() == ["5000", str(128 * 1024 - 6)]


# streams


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_keep_nothing_from_its_exit_code(
    session: Session, image: Path, closed: str
) -> None:
    junk = session.directory / "work" / "junk"
    junk.write_text("junk\n")
    for command, code in (
        ('"$0" fim-exec sh -c "exit 7"', 7),
        ('FIM_LAYERS=$PWD/junk "$0" fim-exec sh -c "exit 7"', 7),
        ('"$0" fim-perms list', 0),
        ('"$0" fim-nosuch', 125),
        ("fimctl ps", 0),
        ("fimctl ps --json", 0),
        ("fimctl images", 0),
        ("fimctl --help", 0),
        ("fimctl run ./nosuch true", 125),
        ('"$0" fim-exec touch /made && "$0" fim-layer commit layer', 0),
    ):
        script = f"{{ {command}; }} {closed}"
        done = session.run("sh", "-c", script, image)
        assert done.returncode == code, (script, done)


def test_a_daemon_with_closed_streams_serves(session: Session, image: Path) -> None:
    daemon = session.start("sh", "-c", "exec fimd <&- >&- 2>&-")
    wait_for((session.tree / "bus").exists, 20, "the daemon")
    for _ in range(3):
        assert session.output(image, "fim-exec", "echo", "hello") == "hello\n"
    daemon.terminate()
    assert daemon.wait(20) == 0


# variables


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTHONHOME", "/nonexistent"),
        ("PYTHONPLATLIBDIR", "nolib"),
        ("PYTHONPATH", "{shadows}"),
        ("PYTHONSTARTUP", "{shadows}/re.py"),
        ("PYTHONWARNINGS", "error"),
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONINSPECT", "1"),
        ("PYTHONUSERBASE", "{shadows}"),
        ("PYTHONCASEOK", "1"),
    ],
)
def test_variables_of_python_are_the_programs_alone(
    session: Session, image: Path, shadows: Path, name: str, value: str
) -> None:
    variables = {name: value.format(shadows=shadows)}
    inside = ("fim-exec", "sh", "-c", f'echo "${name}"')
    assert session.output(image, *inside, variables=variables) == f"{variables[name]}\n"
    session.output(image, "fim-perms", "list", variables=variables)
    assert "PID" in session.output("fimctl", "ps", variables=variables)


def test_variables_of_the_hosts_linker_are_not_the_images(session: Session, image: Path) -> None:
    variables = {"LD_LIBRARY_PATH": "/host/lib", "LD_PRELOAD": ""}
    script = 'echo "${LD_LIBRARY_PATH-none} ${LD_PRELOAD-none}"'
    assert session.output(image, "fim-exec", "sh", "-c", script, variables=variables) == (
        "none none\n"
    )
    session.output(image, "fim-env", "set", "LD_LIBRARY_PATH=/own/lib")
    assert session.output(image, "fim-exec", "sh", "-c", script, variables=variables) == (
        "/own/lib none\n"
    )


def test_an_image_has_its_own_bash_before_the_bundled_one(session: Session, image: Path) -> None:
    own = "printf '#!/bin/sh\\necho own\\n' >/bin/bash; chmod 755 /bin/bash"
    session.output(image, "fim-exec", "sh", "-c", own)
    assert session.output(image, "fim-exec", "bash") == "own\n"
    assert session.output(image, "fim-exec", "sh", "-c", "bash") == "own\n"


# the rest of what a process has


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o777])
def test_the_umask_is_the_programs_alone(session: Session, image: Path, umask: int) -> None:
    script = f'umask {umask:o}; exec "$0" fim-exec sh -c "umask; stat -c %a / /tmp"'
    own, root, shared = session.output("sh", "-c", script, image).split()
    assert int(own, 8) == umask
    assert (root, shared) == ("755", oct(os.stat("/tmp").st_mode)[-4:].lstrip("0"))
    assert session.output(image, "fim-exec", "stat", "-c", "%a", "/") == "755\n"


@pytest.mark.parametrize(
    "limit", ["-n 32", "-f 8", "-c 0", "-s 512", "-v 400000", "-l 64", "-t 60"]
)
def test_limits_are_the_programs_alone(session: Session, image: Path, limit: str) -> None:
    kind, value = limit.split()
    script = f'ulimit {limit}; exec "$0" fim-exec sh -c "ulimit {kind}"'
    assert session.output("sh", "-c", script, image) == f"{value}\n"


def test_a_removed_working_directory_keeps_no_image_from_starting(
    session: Session, image: Path
) -> None:
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" fim-exec echo hello'
    done = subprocess.run(
        ["sh", "-c", script, image],
        cwd=session.directory / "work",
        env=session.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **session.account.switch,
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done


def test_a_home_by_way_of_a_link_is_where_the_program_starts(session: Session, image: Path) -> None:
    real = session.directory / "work" / "real"
    real.mkdir()
    (real / "file").write_text("here\n")
    os.chown(real, session.account.uid, session.account.gid)
    link = session.directory / "work" / "link"
    link.symlink_to(real)
    session.output(image, "fim-perms", "set", "home")
    script = f'cd "{link}" && exec "$0" fim-exec cat file'
    if session.account.uid == 0:
        return  # whose home is not shown inside
    home = {"HOME": str(link)}
    assert session.output("sh", "-c", script, image, variables=home) == "here\n"
