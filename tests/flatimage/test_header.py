import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fimd.flatimage.header import SIZE, header

SHELLS = [["/bin/dash"], ["/bin/bash", "--posix"], ["/bin/busybox", "sh"]]


@pytest.fixture(params=SHELLS, ids=lambda shell: Path(shell[0]).name)
def shell(request: pytest.FixtureRequest) -> list[str]:
    argv: list[str] = request.param
    if not Path(argv[0]).exists():
        pytest.skip(f"{argv[0]} is not installed")
    return argv


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image whose bytes after the header would be an error to any shell."""
    path = tmp_path / "images" / "app.flatimage"
    path.parent.mkdir()
    path.write_bytes(header() + b"\0\xff(((" * 10_000)
    path.chmod(0o755)
    return path


@pytest.fixture
def fimctl(tmp_path: Path) -> Path:
    """A fimctl that prints each of its arguments in brackets, and exits with 7."""
    path = tmp_path / "bin" / "fimctl"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\nprintf '[%s]' \"$@\"\nexit 7\n")
    path.chmod(0o755)
    return path


def run(
    argv: list[str], cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_header_says_where_the_reserved_space_is_and_ends_there() -> None:
    assert len(header()) == SIZE
    assert header().startswith(b"#!/bin/sh")
    assert f"\nFIM_RESERVED_OFFSET={SIZE}\n".encode() in header()
    assert b"\0" not in header()


def test_fimctl_gets_the_image_and_every_argument(
    shell: list[str], image: Path, fimctl: Path
) -> None:
    arguments = ["fim-exec", "a b", "", "*", "$x", "--", "new\nline", "-e"]
    done = run([*shell, str(image), *arguments], PATH=f"{fimctl.parent}:/usr/bin:/bin")
    assert done.stdout == "".join(f"[{word}]" for word in ["app", str(image), *arguments])
    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.parametrize("name", ["with space", "new\nline", "-dash", "quo'te\"", "--", "ünï"])
def test_the_image_may_have_any_name(
    shell: list[str], image: Path, fimctl: Path, name: str
) -> None:
    renamed = image.rename(image.with_name(name))
    path = f"{fimctl.parent}:/usr/bin:/bin"
    for argv, shown in (
        ([*shell, str(renamed), "x"], str(renamed)),
        ([*shell, "-", name, "x"], f"./{name}"),
        ([*shell, f"./{name}", "x"], f"./{name}"),
    ):
        assert run(argv, cwd=image.parent, PATH=path).stdout == f"[app][{shown}][x]"


def test_the_kernel_starts_an_image_whose_name_begins_with_a_hyphen(
    image: Path, fimctl: Path
) -> None:
    image.rename(image.with_name("-n"))
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(image.parent)
            os.execve("-n", ["-n"], {"PATH": f"{fimctl.parent}:/usr/bin:/bin"})
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_an_image_on_the_path_is_found(image: Path, fimctl: Path) -> None:
    path = f"{fimctl.parent}:{image.parent}:/usr/bin:/bin"
    for argv in (["/bin/sh", "-c", "app.flatimage x"], ["/bin/bash", "-c", "app.flatimage x"]):
        assert run(argv, PATH=path).stdout == f"[app][{image}][x]"


def test_a_shell_that_searches_the_path_itself_gives_the_right_place(
    image: Path, fimctl: Path, tmp_path: Path
) -> None:
    path = f"{fimctl.parent}:/nowhere:{image.parent}:/usr/bin:/bin"
    done = run(["/bin/bash", "app.flatimage", "x"], cwd=tmp_path, PATH=path)
    assert done.stdout == f"[app][{image}][x]"


def test_main_offset_is_printed_and_nothing_run(
    shell: list[str], image: Path, fimctl: Path
) -> None:
    for value in ("1", ""):
        done = run([*shell, str(image), "x"], FIMCTL=str(fimctl), FIM_MAIN_OFFSET=value)
        assert (done.returncode, done.stdout, done.stderr) == (0, "4096\n", "")


def test_fimctl_may_be_named_or_lie_in_the_home(
    shell: list[str], image: Path, fimctl: Path, tmp_path: Path
) -> None:
    assert run([*shell, str(image)], FIMCTL=str(fimctl)).stdout == f"[app][{image}]"
    local = tmp_path / "home" / ".local" / "bin"
    local.mkdir(parents=True)
    shutil.copy(fimctl, local)
    assert run([*shell, str(image)], HOME=str(tmp_path / "home")).stdout == f"[app][{image}]"


@pytest.fixture
def no_system_fimctl() -> None:
    if any(Path(place, "fimctl").exists() for place in ("/usr/bin", "/usr/local/bin")):
        pytest.skip("fimctl is installed on this system")


@pytest.mark.usefixtures("no_system_fimctl")
def test_without_fimctl_one_sentence_says_how_to_get_it(shell: list[str], image: Path) -> None:
    done = run([*shell, str(image), "x"])
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        f"{image}: running it takes fimctl, which is not here: "
        "install fimd, or set FIMCTL to its path.\n"
    )


def test_a_wrong_fimctl_is_named(shell: list[str], image: Path) -> None:
    done = run([*shell, str(image)], FIMCTL="/nowhere/fimctl")
    assert (done.returncode, done.stdout) == (125, "")
    assert "/nowhere/fimctl" in done.stderr


def test_the_header_starts_no_process_of_its_own(
    shell: list[str], image: Path, fimctl: Path
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    done = run([strace, "-f", "-e", "trace=process", *shell, str(image)], FIMCTL=str(fimctl))
    assert "fork" not in done.stderr
    assert "clone" not in done.stderr


def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    (tmp_path / "header").write_bytes(header().rstrip(b"\n") + b"\n")
    done = run([shellcheck, str(tmp_path / "header")])
    assert done.stdout == ""
