"""`pip install` and `pipx install`, then `fimctl setup`, then an image, by that alone."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.test_deb import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

VISIT = """\
cd
mkdir -p root/bin root/etc root/tmp root/root root/dev root/proc root/sys root/home
cp "$BUSYBOX" root/bin/busybox
for name in sh cat echo; do ln -s busybox root/bin/$name; done
fimctl setup
fimctl image create -l 1 root app.flatimage
fimctl boot set app.flatimage sh -c 'exit 0'
./app.flatimage fim-exec echo from inside
fimctl desktop install app.flatimage
fimctl desktop list
fimctl doctor --json > doctor.json || true
mkdir -p ~/.local/bin  # for which man looks into ~/.local/share
for page in fimctl fimd flatimage org.flatimage.Fim1; do
  ! command -v man > /dev/null || PATH=~/.local/bin:/usr/bin man -w $page
done
fimctl setup --remove
fimctl shutdown
"""


def by_pip(source: Path, directory: Path) -> list[list[str | Path]]:
    venv = directory / "venv"
    return [[sys.executable, "-m", "venv", venv], [venv / "bin" / "pip", "install", source]]


def by_pipx(source: Path, _directory: Path) -> list[list[str | Path]]:
    if shutil.which("pipx") is None:
        pytest.skip("pipx is not installed")
    return [["pipx", "install", "--python", os.path.realpath(sys.executable), source]]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place with a short name, for the bus's socket."""
    path = Path(tempfile.mkdtemp(prefix="fimd-pip-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.mark.parametrize(("how", "programs"), [(by_pip, "venv/bin"), (by_pipx, "bin")])
def test_a_fresh_installation_runs_an_image(
    how: Callable[[Path, Path], list[list[str | Path]]],
    programs: str,
    directory: Path,
    busybox: Path,
) -> None:
    source, home = directory / "source", directory / "home"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, check=True, capture_output=True
    )
    for name in os.fsdecode(tracked.stdout).split("\0"):
        if name and (PROJECT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, source / name)
    environment = {
        "HOME": str(home),
        "PATH": f"{directory / programs}:/usr/bin:/bin:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        "BUSYBOX": str(busybox),
        "FIM_DIR_GLOBAL": str(directory / "fim"),
        "XDG_RUNTIME_DIR": str(directory / "run"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "PIPX_HOME": str(directory / "pipx"),
        "PIPX_BIN_DIR": str(directory / "bin"),
        **{key: value for key, value in os.environ.items() if key.startswith("PIP_")},
    }
    (directory / "run").mkdir(mode=0o700)
    home.mkdir()
    for command in how(source, directory):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode and "Could not fetch" in done.stderr + done.stdout:
            pytest.skip("there is no way to the package index")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    done = subprocess.run(
        ["dbus-run-session", "--", "sh", "-ec", VISIT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "from inside" in lines
    share = home / ".local/share"
    assert f"wrote {share}/dbus-1/services/org.flatimage.Fim1.service" in lines
    assert any(line.endswith("/app.flatimage") and " yes " in line for line in lines), lines
    assert "Traceback" not in done.stderr
    mounted = Path("/proc/self/mountinfo").read_text()
    assert f" {directory}/" not in mounted
