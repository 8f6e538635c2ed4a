"""Completions and manual pages are up to date, and do what they should."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fimctl.cli import build
from fimctl.commands.describe import text
from fimctl.describe.tree import describe
from tests.support.terminal import Terminal

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"


def needs(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("completions/fimctl.bash", "completions/_fimctl", "completions/fimctl.fish"),
        *("man/fimctl.1", "man/flatimage.7"),
    ],
)
def test_files_are_what_the_parser_says(name: str) -> None:
    path = PACKAGING / name
    assert path.read_text() == text(path.name), "run packaging/describe"


def test_every_command_says_what_it_does() -> None:
    for command in describe(build()).walk():
        assert command.summary or command.description, command.words


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ov"], {"overlay"}),
        (["overlay", "s"], {"set", "show"}),
        (["overlay", "set", "app", "union"], {"unionfs"}),
        (["overlay", "set", "app.f"], {"app.flatimage"}),
        (["run", "--ov"], {"--overlay"}),
        (["instance", "exec", "app.f"], {"app.flatimage"}),
    ],
)
class TestShells:
    """What shells offer where a file app.flatimage is."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "app.flatimage").touch()
        monkeypatch.chdir(tmp_path)

    def test_bash(self, words: list[str], offered: set[str]) -> None:
        script = 'source "$1"; shift; COMP_WORDS=(fimctl "$@"); COMP_CWORD=$#; _fimctl'
        printing = 'printf "%s\\n" "${COMPREPLY[@]}"'
        done = self.ask(["bash", "-uc", f"{script}; {printing}", "bash"], "fimctl.bash", words)
        assert set(done.splitlines()) == offered

    def test_fish(self, words: list[str], offered: set[str]) -> None:
        fish = needs("fish")
        script = 'source $argv[1]; complete -C "fimctl $argv[2..]"'
        done = self.ask([fish, "--no-config", "-c", script], "fimctl.fish", words)
        assert {line.split("\t")[0] for line in done.splitlines()} == offered

    def test_zsh(self, words: list[str], offered: set[str]) -> None:
        # What the script hands to zsh's own functions, which need a terminal.
        script = """
            function _describe { print -rl -- ${${(P)@[-1]}%%:*} }
            function _files { print -rl -- *(N) }
            function run { local file=$1; words=("fimctl" "${@:2}"); CURRENT=$#words; . $file }
            run "$@"
        """
        done = self.ask([needs("zsh"), "-fc", script, "zsh"], "_fimctl", words)
        assert offered <= {line for line in done.splitlines() if line.startswith(words[-1])}

    @staticmethod
    def ask(command: list[str], name: str, words: list[str]) -> str:
        file = PACKAGING / "completions" / name
        done = subprocess.run(
            [*command, file, *words], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "fimctl.bash"),
    "zsh": (["zsh", "-f", "-i"], "_fimctl"),
    "fish": (["fish", "--no-config", "-i"], "fimctl.fish"),
}
LOAD = {
    "bash": "PS1='ready''> '; source {}; fimctl() {{ echo \"[$*]\"; }}",
    "zsh": "PS1='ready''> '; autoload -Uz compinit; compinit -D; compdef -e 'source {}' fimctl; "
    'unsetopt zle_bracketed_paste; fimctl() {{ echo "[$*]" }}',
    "fish": 'source {}; function fimctl; echo "[$argv]"; end; '
    "function fish_prompt; echo 'ready''> '; end",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_in_a_shell_on_a_terminal_the_tabulator_completes(shell: str, tmp_path: Path) -> None:
    needs(shell)
    command, name = SHELLS[shell]
    (tmp_path / "my app.flatimage").touch()

    def start(*argv: str, **options: Any) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "TERM": "vt100", "HOME": str(tmp_path)}
        return subprocess.Popen(argv, cwd=tmp_path, env=environment, **options)

    with Terminal() as terminal:
        process = terminal.start(start, *command)
        try:
            terminal.settle()
            terminal.type(LOAD[shell].format(PACKAGING / "completions" / name) + "\r")
            terminal.wait_for("ready> ", 30)
            for keys in ("fimctl ov\t", "se\t", "my\t", "uni\t"):
                terminal.type(keys)
                terminal.settle()
            terminal.type("\r")
            terminal.wait_for(r"\[overlay set my app\.flatimage unionfs\]")
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("page", ["fimctl.1", "flatimage.7"])
def test_manual_pages_are_well_formed(page: str) -> None:
    command = [needs("groff"), "-man", "-ww", "-Tascii", "-z", str(PACKAGING / "man" / page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
