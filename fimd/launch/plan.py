"""The launch plan: what the client executes to become the instance.

The client's process becomes bubblewrap with the program as its child. The client appends the
program's words to `argv` and executes it with its own environment: nothing that the image says
bears on what runs outside of the sandbox.
"""

import os
from dataclasses import dataclass
from typing import Final

from fimd.base.errors import UnsupportedError
from fimd.base.texts import label
from fimd.flatimage.settings import Unshare
from fimd.images.image import ImageFacts
from fimd.launch.bindings import unshare_options
from fimd.launch.draft import RC_FILE, SCRIPT, Draft
from fimd.launch.entry import words
from fimd.launch.expansion import quoted
from fimd.launch.place import Place
from fimd.launch.programs import ENTRY
from fimd.launch.request import StartRequest
from fimd.launch.targets import Found, Seen

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
_MOST_WORDS: Final = 8000
"""Bubblewrap takes 9000, with those of the program, and refuses more in its own words."""


@dataclass(frozen=True)
class LaunchPlan:
    """A command, and how it is to be executed."""

    argv: tuple[str, ...]
    ignored_signals: tuple[int, ...] = ()
    """Signals for the client to ignore before it executes `argv`, which resets them inside."""
    seen: tuple[Seen, ...] = ()
    """Files that the client has to have by the same names, or else not to execute `argv`."""


def launch_plan(
    place: Place,
    root: str,
    request: StartRequest,
    image: ImageFacts,
    draft: Draft,
    found: Found,
    signals: tuple[int, ...] = (),
) -> LaunchPlan:
    """Make the plan of an instance. `root` is the tree to be seen as /, `found` what it has."""
    entry = os.path.join(place.programs, ENTRY)
    tied = Unshare.PID in image.unshare  # to the process 1 that bubblewrap puts there
    if not os.path.exists(entry):
        entry, tied, signals = "", True, ()
    who = draft.who

    argv = [*draft.join, draft.bwrap, *(("--die-with-parent",) if tied else ())]
    argv += [*(() if os.getuid() == 0 else ("--unshare-user",)), "--bind", root, "/"]
    argv += ["--uid", str(who.uid), "--gid", str(who.gid)]
    for bind in found.binds:
        argv += bind.words
    argv += [*unshare_options(image.unshare), *draft.variables.words()]
    if len(argv) > _MOST_WORDS:
        raise UnsupportedError(
            f"{image.path} has {len(found.binds)} bindings and {len(draft.variables.plain)} "
            "variables, which is more than bubblewrap takes: remove some"
        )
    argv += ["--", *((entry, *words(0 if tied else place.pid, signals)) if entry else ())]
    rc_file, name = os.path.join(place.directory, RC_FILE), label(os.path.basename(place.image))
    run, bash = _RUN, _BASH
    if draft.variables.script:
        read = f". {quoted(os.path.join(place.directory, SCRIPT))}\n"
        run, bash = read + run, read + bash
    program, *rest = draft.boot
    if request.mode == "boot" and image.boot == ("bash",):
        argv += [draft.shell, "-c", bash, name, rc_file]
    elif request.mode == "boot":
        own = ("--rcfile", rc_file) if program == "bash" else ()
        argv += [draft.shell, "-c", run, name, program, *own, *rest]
    else:
        argv += [draft.shell, "-c", run, name]
    return LaunchPlan(tuple(argv), signals, found.seen)
