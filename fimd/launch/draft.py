"""What a start asks for, by its caller and its image, before the image's tree is looked at."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fimd.base.namespaces import has_own_mounts
from fimd.images.image import ImageFacts
from fimd.launch import accounts, bindings, identity, outside, permissions
from fimd.launch.bindings import SHARED, Bind
from fimd.launch.expansion import expand, expand_value
from fimd.launch.identity import Identity
from fimd.launch.place import LOCK, Place, exported
from fimd.launch.request import StartRequest
from fimd.launch.variables import Inside, inside

RC_FILE: Final = "bashrc"
SCRIPT: Final = "variables"
"""Names of files in the instance's directory."""
APT: Final = "apt.conf"
_APT: Final = 'APT::Sandbox::User "root";\n'
"""apt becomes another user to fetch, and looks whether it did."""
TEMPORARY: Final = "TMPDIR"
_IDENTITY: Final = ("HOME", "USER", "SHELL", "XDG_RUNTIME_DIR")
"""Variables that tell who the program runs as: no stored one overrides them."""


@dataclass(frozen=True)
class Draft:
    """A launch plan, but for where its mounts lie in the tree."""

    bwrap: str
    who: Identity
    variables: Inside
    binds: tuple[Bind, ...]
    """In the order in which they are made; the last is the runtime tree's place."""
    boot: tuple[str, ...]
    """The image's boot command."""
    shell: str
    """A shell that the sandbox has."""
    files: dict[str, str]
    """Texts by their names in the instance's directory."""
    directories: tuple[str, ...]
    """What the caller's TMPDIR says is one, which is of use inside only where it is."""
    looks: tuple[str, ...]
    """Files that the process is to have by the same names as the user's namespace has."""
    warnings: tuple[str, ...]


def draft(place: Place, request: StartRequest, image: ImageFacts) -> Draft:
    """Work out what a start asks for. Looks at the host's files: not for the event loop.

    Raises UnsupportedError where a program is missing that makes the sandbox.
    """
    bwrap = outside.find("bwrap", request.environment.get("PATH"))
    warnings: list[str] = []
    given = exported(place, request.environment)
    known = {**request.environment, **given}
    shell = _shell(place)
    who = identity.resolve(
        root=request.root or request.mode == "root",
        stored=_stored_identity(image, known, warnings),
        environment=request.environment,
        shell=shell,
    )
    runtime = request.environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    caller = permissions.Caller(request.environment, runtime, who.uid == 0)
    is_alone = place.is_alone and who.uid == 0
    if is_alone and "APT_CONFIG" not in request.environment:
        given["APT_CONFIG"] = os.path.join(place.directory, APT)
    grant = permissions.grant(image.permissions, caller)
    variables = inside(
        {**given, "BASHRC_FILE": os.path.join(place.directory, RC_FILE), **dict(grant.variables)},
        image.environment,
        dict(zip(_IDENTITY, (who.home, who.name, who.shell, runtime), strict=True)),
        known,
    )
    program, *rest = image.boot
    binds = (
        *bindings.standard(place, runtime),
        *bindings.stored(image.bindings, known, warnings, trusted=request.executed),
        *grant.binds,
        bindings.runtime_tree(place),
    )
    files = {**accounts.first(who), RC_FILE: _bashrc(image.environment.get("PS1")), LOCK: ""}
    if is_alone:
        files[APT] = _APT
    if variables.script:
        files[SCRIPT] = variables.script
    return Draft(
        bwrap=bwrap,
        who=who,
        variables=variables,
        binds=binds,
        boot=(expand(program, known).text, *rest),
        shell=shell,
        files=files,
        directories=tuple(_temporary(request, image)),
        looks=_looks(place, request),
        warnings=tuple(warnings),
    )


def _stored_identity(
    image: ImageFacts, known: dict[str, str], warnings: list[str]
) -> dict[str, str]:
    """Return the stored variables that tell who the program is, expanded.

    They are needed before there is a sandbox: one that holds a command is none, with a warning.
    """
    found = {}
    for key in ("UID", "GID", *_IDENTITY[:3]):
        if key not in image.environment:
            continue
        word = expand_value(key, image.environment[key], known)
        if word.code:
            warnings.append(f"the stored {key} is left out: no command is run to know who one is")
        else:
            found[key] = word.text
    return found


def _temporary(request: StartRequest, image: ImageFacts) -> Iterator[str]:
    """Yield the caller's TMPDIR, unless the image has one of its own."""
    given = request.environment.get(TEMPORARY)
    if given and TEMPORARY not in image.environment:
        yield given


def _looks(place: Place, request: StartRequest) -> tuple[str, ...]:
    """Return what a process with mounts of its own may have another one of, where it is that.

    What the program writes would be somewhere else than its user looks for it.
    """
    if not has_own_mounts(request.pid):
        return ()
    try:
        working = os.readlink(f"/proc/{request.pid}/cwd")
    except OSError:  # it has ended, which the start will find out, or is hidden
        working = "/"
    home = request.environment.get("HOME", "/")
    paths = (place.image, place.data, place.app, SHARED, working, home)
    return tuple(dict.fromkeys(path for path in paths if path.startswith("/")))


def _shell(place: Place) -> str:
    """Return a shell that the sandbox has: the one beside the runtime tree, or the image's own."""
    bundled = os.path.join(place.programs, "bash")
    return bundled if os.access(bundled, os.X_OK) else "/bin/sh"


def _bashrc(prompt: str | None) -> str:
    """Return what an interactive bash reads first: the prompt."""
    if prompt is None:
        prompt = "[flatimage-${FIM_DIST,,}] \\W > "
    return 'export PS1="{}"\n'.format(prompt.replace('"', '\\"'))
