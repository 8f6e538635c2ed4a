"""An image's own bindings and its unshare options, as arguments of bubblewrap."""

from collections.abc import Iterable, Iterator
from typing import Final

from fimd.flatimage.settings import Binding, BindingType, Unshare

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


def binding_options(bindings: Iterable[Binding]) -> Iterator[tuple[str, str, str]]:
    """Return option, source and target of each binding; the paths are not expanded yet."""
    return ((_OPTIONS[binding.type], binding.src, binding.dst) for binding in bindings)


def unshare_options(unshare: Unshare) -> tuple[str, ...]:
    """Return the option of each namespace that is not to be the host's."""
    return tuple(option for flag, option in _NAMESPACES.items() if flag in unshare)
