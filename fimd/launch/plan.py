"""The launch plan: what the client executes to become the instance.

The client's process becomes the one that waits for bubblewrap and the program in it
(fimd/launch/entry.c). The client appends the program's words to `argv`, and sets `environment` over
its own. Whatever a stored setting says may hold variables and commands, which are the caller's: the
plan names what the client has to expand.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fimd.flatimage.settings import Permission, Unshare, without
from fimd.images.image import ImageFacts
from fimd.launch import entry, identity, permissions, rights
from fimd.launch.bindings import binding_options, unshare_options
from fimd.launch.cover import Cover, revealed
from fimd.launch.expansion import is_variable_to_expand, needs_expansion
from fimd.launch.identity import Identity
from fimd.launch.place import LOCK, Place, exported
from fimd.launch.programs import ENTRY
from fimd.launch.request import StartRequest
from fimd.launch.sandbox import bubblewrap

# A shell looks the program up, so that names, paths and builtins work, and a program that is not
# there, or can't be executed, gives the exit codes 127 and 126. The words stay arguments. Only
# exec makes every shell leave its place to the program, which is to have its signals itself.
_RUN: Final = (
    'case $1 in */*) exec "$@";; esac; case $(command -v -- "$1") in */*) exec "$@";; esac; "$@"'
)
# With no boot program stored, `IMAGE a b` is `bash a b`, which can but fail where `a` is a program
# and no script. The specification's examples (`IMAGE stat /file`) have such programs run.
_BASH: Final = (
    'rc=$1; shift; case ${1-} in ""|-*) ;; *) [ -e "$1" ] || '
    'case $(command -v -- "$1") in */*) exec "$@";; esac;; esac; exec bash --rcfile "$rc" "$@"'
)
_SHARED: Final = "/tmp"  # noqa: S108 - shared with the host by FlatImage's contract

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
    warnings: tuple[str, ...] = ()
    """What of the image's settings is left out, and why."""


class _Argv:
    """A command line, and which of its words are to be expanded."""

    def __init__(self, cover: Cover) -> None:
        self.words: list[str] = []
        self.stored: list[int] = []
        self.warnings: list[str] = []
        self._cover = cover
        self._start = 0

    def add(self, *words: str) -> None:
        self.words += words

    def add_stored(self, word: str) -> None:
        """Add a word of a stored setting."""
        if needs_expansion(word):
            self.stored.append(len(self.words))
        self.words.append(word)

    def start(self, program: str, sandbox: str) -> None:
        """Add what waits for the sandbox, where there is our own program for that, and its own."""
        self._start = len(self.words)
        self.add(*(entry.monitor(program) if program else ()), sandbox)

    def run(self, program: str, lock: str, signals: tuple[int, ...], *, first: bool) -> None:
        """Add what comes before the words of what is to run; `first` is for a PID namespace.

        Without our own program bubblewrap ends what is left with the program that left it.
        """
        if not program:
            self.add("--die-with-parent", "--")
            return
        self.add(*(("--as-pid-1",) if first else ()), "--", program, "init")
        self.words[self._start + entry.INDEX] = str(len(self.words) - self._start)
        self.add(*entry.init(lock, signals))

    def bind(self, option: str, source: str, target: str, *, by: str = "") -> None:
        """Show a part of the host, with the runtime tree hidden in it.

        `by` is where the part is to be taken from, if not from its own place.
        """
        if self._cover.holds(source):
            self.warnings.append(f"{source} is not shown inside: it leads into fimd's own files")
            return
        self.add(option)
        self.add_stored(by or source)
        self.add_stored(target)
        self.add(*self._cover.over(source, target))


def launch_plan(
    place: Place,
    root: str,
    request: StartRequest,
    image: ImageFacts,
    signals: tuple[int, ...] = (),
    cover: Cover | None = None,
    *,
    own_processes: bool = True,
) -> LaunchPlan:
    """Make the plan of an instance. `root` is the tree to be seen as /.

    `signals` are those that bubblewrap is to leave to its program (fimd.launch.terminal), `cover`
    tells where the runtime tree is to be hidden. With `own_processes` the program sees none of the
    host's, unless the image may. May wait for any file system that the sandbox is to show.
    """
    shell = _shell(place)
    program = os.path.join(place.programs, ENTRY)
    if not os.path.exists(program):
        program, signals = "", ()
    who = identity.resolve(
        root=request.root or request.mode == "root",
        stored=image.environment,
        environment=request.environment,
        shell=shell,
    )
    runtime = request.environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    caller = permissions.Caller(request.environment, runtime, who.uid == 0)
    grant = permissions.grant(image.permissions, caller)

    argv = _Argv(cover or Cover((place.app,)))
    argv.add(*place.join)
    argv.start(program, bubblewrap(request.environment))
    # root inside is that of the user's namespace, with all of its ids; others get one below it
    argv.add(*(() if who.uid == who.gid == 0 else ("--unshare-user",)))
    argv.add("--bind", root, "/")
    argv.add("--uid", str(who.uid), "--gid", str(who.gid))
    argv.add("--dev", "/dev", "--proc", "/proc")
    argv.bind("--bind", _SHARED, _SHARED, by=place.shared)
    argv.add("--bind", "/sys", "/sys", "--bind-try", "/etc/group", "/etc/group")
    argv.add("--bind-try", os.path.join(place.directory, "passwd"), "/etc/passwd")
    for option, source, target in binding_options(image.bindings):
        argv.bind(option, source, target)
    for option, source, target in zip(*[iter(grant.argv)] * 3, strict=True):
        argv.bind(option, source, target)
    argv.add(*revealed(place.app, (place.programs, place.applets, place.directory)))
    argv.add(*unshare_options(without(image.unshare, Unshare.PID)))
    argv.add(*rights.options(root=who.uid == 0))
    for key, value in image.environment.items():
        if _concerns_host(key):
            argv.add("--setenv")
            argv.add_stored(key)
            argv.add_stored(value)
    first = own_processes and wants_own_processes(image)
    argv.add(*(("--unshare-pid",) if first else ()))
    argv.run(program, place.lock, signals, first=first)
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
        files={
            "passwd": who.passwd,
            "bashrc": _bashrc(image.environment.get("PS1")),
            LOCK: "",
        },
        expand_argv=tuple(argv.stored),
        expand_environment=raw,
        expand_identity=any(needs_expansion(image.environment.get(key, "")) for key in IDENTITY),
        ignored_signals=signals,
        warnings=tuple(argv.warnings),
    )


def wants_own_processes(image: ImageFacts) -> bool:
    """Tell whether an image's programs are to see no processes but their own."""
    return Permission.PROCESSES not in image.permissions or Unshare.PID in image.unshare


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
