"""The launch plan: what the client executes to become the instance.

The client's process becomes the one that waits for bubblewrap and the program in it
(fimd/launch/entry.c). The client appends the program's words to `argv` and executes it with its own
environment: nothing that the image says bears on what runs outside of the sandbox.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from fimd.base.errors import UnsupportedError
from fimd.base.texts import label
from fimd.flatimage.settings import Permission, Unshare, without
from fimd.images.image import ImageFacts
from fimd.launch import accounts, entry, outside, rights
from fimd.launch.bindings import SHARED, Bind, unshare_options
from fimd.launch.ceiling import shows
from fimd.launch.cover import Cover, is_hidden, revealed
from fimd.launch.draft import RC_FILE, SCRIPT, TEMPORARY, Draft
from fimd.launch.expansion import quoted
from fimd.launch.place import Place
from fimd.launch.programs import ENTRY
from fimd.launch.request import StartRequest
from fimd.launch.targets import Found, Seen

# A shell looks the program up, so that names, paths and builtins work, and a program that is not
# there, or can't be executed, gives the exit codes 127 and 126. The words stay arguments. Only
# exec makes every shell leave its place to the program, which bubblewrap is to have as its child.
RUN: Final = (
    'case $1 in */*) exec "$@";; esac; case $(command -v -- "$1") in */*) exec "$@";; esac; "$@"'
)
# With no boot program stored, `IMAGE a b` is `bash a b`, which can but fail where `a` is a program
# and no script. The specification's examples (`IMAGE stat /file`) have such programs run.
_BASH: Final = (
    'rc=$1; shift; case ${1-} in ""|-*) ;; *) [ -e "$1" ] || '
    'case $(command -v -- "$1") in */*) exec "$@";; esac;; esac; exec bash --rcfile "$rc" "$@"'
)
_ALONE: Final = (
    "root inside can give files to nobody and become nobody else, as package managers do: there "
    "are no subordinate ids (see 'fimctl doctor'), and fimd's own program was not compiled here"
)
_IN_APPEARANCE: Final = (
    "root inside gives files to others, makes devices and becomes another user in appearance "
    "alone, since there are no subordinate ids (see 'fimctl doctor'): files lose their owners, and "
    "servers that refuse to be root's do not start; this is told once for each image"
)
_KEYS: Final = (
    "it would show keys and other secrets in your home; where you trust the image, execute its "
    "file, or use 'fimctl run --all-bindings'"
)
_LONGEST_WORD: Final = 128 << 10
"""Bytes that the kernel takes (MAX_ARG_STRLEN in linux/binfmts.h)."""
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
    warnings: tuple[str, ...] = ()
    """What of the image's settings is left out, and why."""
    note: str = ""
    """What is to be told once for each image."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts by their names in the instance's directory, to be written before."""


def launch_plan(
    place: Place,
    root: str,
    request: StartRequest,
    image: ImageFacts,
    draft: Draft,
    found: Found,
    signals: tuple[int, ...] = (),
    cover: Cover | None = None,
    *,
    own_processes: bool = True,
) -> LaunchPlan:
    """Make the plan of an instance. `root` is the tree to be seen as /, `found` what it has.

    `signals` are those that bubblewrap is to leave to its program (fimd.launch.terminal), `cover`
    tells where the runtime tree is to be hidden. With `own_processes` the program sees none of the
    host's, unless the image may. May wait for any file system that the sandbox is to show.
    """
    program = os.path.join(place.programs, ENTRY)
    if not os.access(program, os.X_OK):  # nor is it where the tree is mounted noexec by now
        program, signals = "", ()
    who = draft.who
    warnings: list[str] = []
    first = own_processes and wants_own_processes(image)

    is_alone = place.is_alone and who.uid == 0
    if is_alone and not program:
        warnings.append(_ALONE)

    sandbox = [draft.bwrap]
    # root inside is that of the user's namespace, with all of its ids; others get one below it
    sandbox += () if who.uid == who.gid == 0 else ("--unshare-user",)
    sandbox += ["--bind", root, "/", "--uid", str(who.uid), "--gid", str(who.gid)]
    *binds, tree = found.binds  # the last is the runtime tree: see fimd.launch.draft
    texts = accounts.shown(who, found.accounts)
    own = {os.path.join(place.directory, name) for name in accounts.PLACES.keys() - texts.keys()}
    hidden = False  # the runtime tree's own place
    shown: list[Bind] = []
    for bind in (bind for bind in binds if bind.source not in own):
        words = tuple(_shown(bind, place, tree.target, cover or Cover((place.app,)), warnings))
        sandbox += words
        shown += [bind] if words else []
        hidden = is_hidden(tree.target, words, bind.target, hidden)
    parts = (place.programs, place.applets, place.directory)
    sandbox += revealed(place.app, tree.target, parts, anew=not hidden)
    sandbox += unshare_options(without(image.unshare, Unshare.PID))
    sandbox += rights.options(root=who.uid == 0)
    sandbox += draft.variables.words()
    sandbox += () if found.directories.issuperset(draft.directories) else ("--unsetenv", TEMPORARY)
    sandbox += ("--unshare-pid",) if first else ()
    checked = entry.said(_checked([*shown, tree], place))
    if len(sandbox) > _MOST_WORDS or len(os.fsencode(checked)) >= _LONGEST_WORD:
        raise UnsupportedError(
            f"{image.path} has {len(binds)} bindings and {len(draft.variables.plain)} "
            "variables, which is more than bubblewrap takes: remove some"
        )
    if program:
        around = _around(
            program, sandbox, entry.init(place.lock, signals, checked), place, first=first
        )
    else:
        join = outside.command(place.join, request.environment.get("PATH"))
        around = (*join, *sandbox, "--die-with-parent", "--")
    return LaunchPlan(
        (*around, *_inside(place, request, image, draft)),
        signals,
        found.seen,
        tuple(warnings),
        _IN_APPEARANCE if is_alone and program else "",
        texts,
    )


def wants_own_processes(image: ImageFacts) -> bool:
    """Tell whether an image's programs are to see no processes but their own."""
    return Permission.PROCESSES not in image.permissions or Unshare.PID in image.unshare


def _shown(bind: Bind, place: Place, own: str, cover: Cover, warnings: list[str]) -> Iterator[str]:
    """Yield what shows a part of the host, with the runtime tree hidden in it."""
    if not bind.source:
        yield from bind.words
        return
    real = os.path.realpath(SHARED) if bind.source == place.shared else bind.real
    if cover.holds(real) and not bind.is_ours:
        warnings.append(f"{bind.source} is not shown inside: it leads into fimd's own files")
        return
    if shows(real, bind.kept_from):
        warnings.append(f"{bind.source} is not shown inside: {_KEYS}")
        return
    yield from bind.words
    yield from cover.over(real, bind.target, own, option=bind.option, bound=bind.source)


def _checked(shown: Sequence[Bind], place: Place) -> Iterator[Seen]:
    """Yield what of the host has to be inside as it was found, and no later mount hides there.

    Who may write to a directory above a source can exchange it until bubblewrap takes it.
    """
    hidden: set[str] = set()
    for bind in reversed(shown):
        above = {bind.target, *map(str, PurePosixPath(bind.target).parents)}
        if bind.source and not bind.is_ours and bind.source != place.shared and not above & hidden:
            yield Seen(bind.target, *bind.identity)
        hidden.add(bind.target)


def _around(
    program: str, sandbox: list[str], init: tuple[str, ...], place: Place, *, first: bool
) -> tuple[str, ...]:
    """Return bubblewrap's words with what waits for it, and what it runs before all others.

    `first` is for a PID namespace.
    """
    words = [*entry.monitor(program, place.namespaces), *sandbox]
    words += ("--as-pid-1",) if first else ()
    words += ["--", program, "init"]
    words[entry.INDEX] = str(len(words))
    return (*words, *init)


def _inside(
    place: Place, request: StartRequest, image: ImageFacts, draft: Draft
) -> tuple[str, ...]:
    """Return the words of the program, as far as the image or its mode gives them."""
    rc_file, name = os.path.join(place.directory, RC_FILE), label(os.path.basename(place.image))
    run, bash = RUN, _BASH
    if draft.variables.script:
        read = f". {quoted(os.path.join(place.directory, SCRIPT))}\n"
        run, bash = read + run, read + bash
    if request.mode == "boot" and image.boot == ("bash",):
        return (draft.shell, "-c", bash, name, rc_file)
    if request.mode == "boot":
        program, *rest = draft.boot
        own = ("--rcfile", rc_file) if program == "bash" else ()
        return (draft.shell, "-c", run, name, program, *own, *rest)
    return (draft.shell, "-c", run, name)
