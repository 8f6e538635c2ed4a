"""The launch plan: what the client executes to become the instance.

The client's process becomes bubblewrap with the program as its child. The client appends the
program's words to `argv`, and sets `environment` over its own. Whatever a stored setting says may
hold variables and commands, which are the caller's: the plan names what the client has to expand.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fimd.flatimage.settings import Unshare
from fimd.images.image import ImageFacts
from fimd.launch import identity, permissions
from fimd.launch.bindings import binding_options, unshare_options
from fimd.launch.entry import words
from fimd.launch.expansion import is_variable_to_expand, needs_expansion
from fimd.launch.identity import Identity
from fimd.launch.place import Place, exported
from fimd.launch.programs import ENTRY
from fimd.launch.request import StartRequest

# A shell looks the program up, so that names, paths and builtins work, and a program that is not
# there, or can't be executed, gives the exit codes 127 and 126. The words stay arguments. Only
# exec makes every shell leave its place to the program, which bubblewrap is to have as its child.
_RUN: Final = (
    'case $1 in */*) exec "$@";; esac; case $(command -v -- "$1") in */*) exec "$@";; esac; "$@"'
)
# With no boot program stored, `IMAGE a b` is `bash a b`, which can but fail where `a` is a program
# and no script. The specification's examples (`IMAGE stat /file`) have such programs run.
_BASH: Final = (
    'rc=$1; shift; case ${1-} in ""|-*) ;; *) [ -e "$1" ] || '
    'case $(command -v -- "$1") in */*) exec "$@";; esac;; esac; exec bash --rcfile "$rc" "$@"'
)
_SHARED: Final = "/tmp/"  # noqa: S108 - shared with the host by FlatImage's contract

IDENTITY: Final = ("HOME", "USER", "SHELL", "XDG_RUNTIME_DIR")
"""Variables that tell who the program runs as: no stored one overrides them."""


@dataclass(frozen=True)
class LaunchPlan:
    """A command, the variables that it needs over the caller's, and the files that it refers to."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, str]
    """Texts by their names in the instance's directory."""
    expand_argv: tuple[int, ...] = ()
    """Indices of the words in `argv` that the client expands."""
    expand_environment: tuple[tuple[str, str], ...] = ()
    """Variables to be expanded, key and value, and set over `environment` but for IDENTITY."""
    expand_identity: bool = False
    """Whether HOME, USER and SHELL are to be expanded, and written into the file passwd."""
    ignored_signals: tuple[int, ...] = ()
    """Signals for the client to ignore before it executes `argv`, which resets them inside."""


class _Argv:
    """A command line, and which of its words are to be expanded."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.stored: list[int] = []

    def add(self, *words: str) -> None:
        self.words += words

    def add_stored(self, word: str) -> None:
        """Add a word of a stored setting."""
        if needs_expansion(word):
            self.stored.append(len(self.words))
        self.words.append(word)


def launch_plan(
    place: Place,
    root: str,
    request: StartRequest,
    image: ImageFacts,
    signals: tuple[int, ...] = (),
) -> LaunchPlan:
    """Make the plan of an instance. `root` is the tree to be seen as /.

    `signals` are those that bubblewrap is to leave to its program (fimd.launch.terminal).
    """
    shell = _shell(place)
    entry = os.path.join(place.programs, ENTRY)
    tied = Unshare.PID in image.unshare  # to the process 1 that bubblewrap puts there
    if not os.path.exists(entry):
        entry, tied, signals = "", True, ()
    who = identity.resolve(
        root=request.root or request.mode == "root",
        stored=image.environment,
        environment=request.environment,
        shell=shell,
    )
    runtime = request.environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    caller = permissions.Caller(request.environment, runtime, who.uid == 0)
    grant = permissions.grant(image.permissions, caller)

    argv = _Argv()
    argv.add(*place.join, "bwrap", *(("--die-with-parent",) if tied else ()))
    argv.add(*(() if os.getuid() == 0 else ("--unshare-user",)), "--bind", root, "/")
    argv.add("--uid", str(who.uid), "--gid", str(who.gid))
    argv.add("--dev", "/dev", "--proc", "/proc", "--bind", place.shared, "/tmp")  # noqa: S108 - as _SHARED
    argv.add("--bind", "/sys", "/sys", "--bind-try", "/etc/group", "/etc/group")
    if not place.app.startswith(_SHARED):
        for directory in (place.programs, place.applets, place.directory):
            argv.add("--ro-bind", directory, directory)
    argv.add("--bind-try", os.path.join(place.directory, "passwd"), "/etc/passwd")
    for option, source, target in binding_options(image.bindings):
        argv.add(option)
        argv.add_stored(source)
        argv.add_stored(target)
    argv.add(*grant.argv, *unshare_options(image.unshare))
    for key, value in image.environment.items():
        if _concerns_host(key):
            argv.add("--setenv")
            argv.add_stored(key)
            argv.add_stored(value)
    argv.add("--", *((entry, *words(0 if tied else place.pid, signals)) if entry else ()))
    rc_file, name = os.path.join(place.directory, "bashrc"), os.path.basename(place.image)
    if request.mode == "boot" and image.boot == ("bash",):
        argv.add(shell, "-c", _BASH, name, rc_file)
    elif request.mode == "boot":
        program, *rest = image.boot
        argv.add(shell, "-c", _RUN, name)
        argv.add_stored(program)
        argv.add(*(("--rcfile", rc_file) if program == "bash" else ()), *rest)
    else:
        argv.add(shell, "-c", _RUN, name)

    stored = {
        key: value for key, value in image.environment.items() if not _concerns_host(key) and key
    }
    raw = tuple(item for item in stored.items() if is_variable_to_expand(*item))
    return LaunchPlan(
        argv=tuple(argv.words),
        environment={
            **exported(place, request.environment),
            "BASHRC_FILE": os.path.join(place.directory, "bashrc"),
            **dict(grant.variables),
            **{key: value for key, value in stored.items() if (key, value) not in raw},
            **_identity_variables(who, runtime),
        },
        files={"passwd": who.passwd, "bashrc": _bashrc(image.environment.get("PS1"))},
        expand_argv=tuple(argv.stored),
        expand_environment=raw,
        expand_identity=any(needs_expansion(image.environment.get(key, "")) for key in IDENTITY),
        ignored_signals=signals,
    )


def _shell(place: Place) -> str:
    """Return a shell that the sandbox has: the one beside the runtime tree, or the image's own."""
    bundled = os.path.join(place.programs, "bash")
    return bundled if os.path.exists(bundled) else "/bin/sh"


def _concerns_host(key: str) -> bool:
    """Tell whether a variable bears on the programs that make the sandbox.

    They run with the caller's, so that nothing meant for the inside keeps them from starting.
    """
    return key == "PATH" or key.startswith("LD_")


def _identity_variables(who: Identity, runtime: str) -> dict[str, str]:
    values = (who.home, who.name, who.shell, runtime)
    return dict(zip(IDENTITY, values, strict=True))


def _bashrc(prompt: str | None) -> str:
    """Return what an interactive bash reads first: the prompt."""
    if prompt is None:
        prompt = "[flatimage-${FIM_DIST,,}] \\W > "
    return 'export PS1="{}"\n'.format(prompt.replace('"', '\\"'))
