"""What a sandbox shows beside its own tree: what of the host, and where inside."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fimd.flatimage.settings import Binding, BindingType, Unshare
from fimd.launch import accounts
from fimd.launch.ceiling import secrets
from fimd.launch.expansion import expand
from fimd.launch.place import Place

SHARED: Final = "/tmp"  # noqa: S108 - shared with the host by FlatImage's contract
_OPTIONS: Final = {
    BindingType.RO: "--ro-bind-try",
    BindingType.RW: "--bind-try",
    BindingType.DEV: "--dev-bind-try",
}
_NAMESPACES: Final = {
    Unshare.USER: "--unshare-user-try",
    Unshare.IPC: "--unshare-ipc",
    Unshare.PID: "--unshare-pid",
    Unshare.NET: "--unshare-net",
    Unshare.UTS: "--unshare-uts",
    Unshare.CGROUP: "--unshare-cgroup-try",
}


@dataclass(frozen=True)
class Bind:
    """One mount of a sandbox, as bubblewrap makes it."""

    option: str
    """Bubblewrap's; `--dev`, `--proc` and `--tmpfs` show nothing of the host."""
    source: str
    """A path of the host; empty where the option takes none."""
    target: str
    """An absolute path inside."""
    mode: str = ""
    """The permissions of an empty file system, in octal digits."""
    is_needed: bool = False
    """Whether nothing can start without it."""
    is_ours: bool = False
    """Whether it is of the runtime tree, which nothing else shows a part of."""
    kept_from: tuple[str, ...] = ()
    """Places of the host, without links, of which it may show nothing."""
    real: str = ""
    """The source without links, as the user's namespace has it (fimd.launch.targets)."""
    identity: tuple[int, int] = (0, 0)
    """Device and number of what was found there."""

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of bubblewrap."""
        mode = ("--perms", self.mode) if self.mode else ()
        return (*mode, *(word for word in (self.option, self.source, self.target) if word))


def standard(place: Place, runtime: str) -> Iterator[Bind]:
    """Yield what every sandbox has, whatever its image asks for.

    `runtime` is XDG_RUNTIME_DIR. Both of the empty file systems are memory that others can have:
    all users of a machine the one, nobody but the caller the other.
    """
    yield Bind("--dev", "", "/dev")
    yield Bind("--tmpfs", "", "/dev/shm", mode="1777")  # noqa: S108 - the sandbox's own
    if runtime.startswith("/"):
        yield Bind("--tmpfs", "", runtime, mode="0700")
    yield Bind("--proc", "", "/proc")
    has_programs = place.app.startswith(SHARED + "/")
    yield Bind("--bind", place.shared, SHARED, is_needed=has_programs)
    # in which the user may freeze and end all that is the user's (cgroups(7)), and root do anything
    yield Bind("--ro-bind", "/sys", "/sys")
    for name, target in accounts.PLACES.items():
        source = os.path.join(place.directory, name)
        yield Bind("--ro-bind-try", source, target, is_ours=True)


def runtime_tree(place: Place) -> Bind:
    """Return where the runtime tree is inside; what is shown of it there is the plan's to say."""
    return Bind("--ro-bind", place.app, place.app, is_needed=True, is_ours=True)


def stored(
    bindings: Iterable[Binding],
    variables: Mapping[str, str],
    warnings: list[str],
    *,
    trusted: bool = True,
) -> Iterator[Bind]:
    """Yield an image's own bindings with their paths expanded, and warn of those left out.

    Those of one that is not trusted are kept from its user's secrets.
    """
    kept_from = () if trusted else secrets(variables.get("HOME", ""))
    for binding in bindings:
        source, target = expand(binding.src, variables), expand(binding.dst, variables)
        path = os.path.join(variables.get("PWD", ""), source.text)
        if source.code or target.code:
            reason = "no command is run for a path"
        elif not source.text or not path.startswith("/"):
            reason = "it is not an absolute path"
        else:
            place = os.path.join("/", target.text)
            yield Bind(_OPTIONS[binding.type], path, place, kept_from=kept_from)
            continue
        warnings.append(f"the binding {binding.src!r} to {binding.dst!r} is left out: {reason}")


def unshare_options(unshare: Unshare) -> tuple[str, ...]:
    """Return the option of each namespace that is not to be the host's."""
    return tuple(option for flag, option in _NAMESPACES.items() if flag in unshare)
