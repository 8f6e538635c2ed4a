"""Permissions: what of the host each one shows inside.

All are -try: what the host does not have is left out.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fimd.flatimage.settings import Permission
from fimd.launch.bindings import Bind

_MOST_DRIVES: Final = 255
_DEVICES: Final = "/dev"
_NVIDIA: Final = re.compile(r"nvidia|cuda|nvcuvid|nvoptix", re.IGNORECASE)
_NOT_NVIDIA: Final = re.compile(r"gst|icudata|egl-wayland", re.IGNORECASE)
_NVIDIA_PLACES: Final = (
    *("/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/i386-linux-gnu", "/usr/lib32"),
    *("/usr/bin", "/usr/share", "/usr/share/vulkan/icd.d"),
)
_MACHINE: Final = "/etc/machine-id"
"""Without it libraries of D-Bus refuse to go to a bus (machine-id(5))."""
_LIBRARIES: Final = "/usr/lib/x86_64-linux-gnu:/usr/lib/i386-linux-gnu"
"""Where an image's linker may not look for libraries that the host's driver has brought along."""


@dataclass(frozen=True)
class Caller:
    """Who asks: the environment, as far as permissions need it, and whether it is root inside."""

    environment: Mapping[str, str]
    runtime: str
    """XDG_RUNTIME_DIR."""
    root: bool


@dataclass(frozen=True)
class Grant:
    """What a permission adds to the launch: mounts, and variables."""

    binds: tuple[Bind, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


def grant(permissions: Permission, caller: Caller) -> Grant:
    """Return what all of the permissions together add."""
    binds: list[Bind] = []
    variables: dict[str, str] = {}
    for permission, permit in _PERMITS:
        if permission in permissions:
            permitted = permit(caller)
            binds += permitted.binds
            variables.update(permitted.variables)
    return Grant(tuple(binds), tuple(variables.items()))


def _bind(option: str, *paths: str) -> tuple[Bind, ...]:
    return tuple(Bind(option, path, path) for path in paths)


def _read_only(*paths: str) -> tuple[Bind, ...]:
    return _bind("--ro-bind-try", *paths)


def _writable(*paths: str) -> tuple[Bind, ...]:
    return _bind("--bind-try", *paths)


def _devices(*paths: str) -> tuple[Bind, ...]:
    return _bind("--dev-bind-try", *paths)


def _home(caller: Caller) -> Grant:
    home = caller.environment.get("HOME", "")
    real = os.path.realpath(home)
    if caller.root or not home.startswith("/") or real == "/":
        return Grant()  # the host's root is nobody's home
    # a home that is named by way of a link is where the working directory says it is, too
    return Grant(_writable(*dict.fromkeys((home, real))))


def _audio(caller: Caller) -> Grant:
    pulse = os.path.join(caller.runtime, "pulse", "native")
    pipewire = os.path.join(caller.runtime, "pipewire-0")
    return Grant(
        (*_writable(pulse, pipewire, "/dev/snd", "/proc/asound"), *_devices("/dev/dsp")),
        (("PULSE_SERVER", f"unix:{pulse}"),),
    )


def _wayland(caller: Caller) -> Grant:
    display = caller.environment.get("WAYLAND_DISPLAY")
    if not display:
        return Grant()
    socket = os.path.join(caller.runtime, display)
    return Grant(_writable(socket), (("WAYLAND_DISPLAY", display),))


def _xorg(caller: Caller) -> Grant:
    display, home = (caller.environment.get(name, "") for name in ("DISPLAY", "HOME"))
    usual = os.path.join(home, ".Xauthority") if home.startswith("/") else ""
    authority = caller.environment.get("XAUTHORITY") or usual
    if not display or not authority:
        return Grant()
    return Grant(_read_only(authority), (("DISPLAY", display), ("XAUTHORITY", authority)))


def _session_bus(caller: Caller) -> Grant:
    address = caller.environment.get("DBUS_SESSION_BUS_ADDRESS", "")
    match = re.search(r"/[^,;]*", address)
    if match is None:
        return Grant()
    variables = (("DBUS_SESSION_BUS_ADDRESS", address),)
    return Grant((*_writable(match[0]), *_read_only(_MACHINE)), variables)


def _optical(_: Caller) -> Grant:
    paths: list[str] = []
    for number in range(_MOST_DRIVES):
        found = [path for path in (f"/dev/sr{number}", f"/dev/sg{number}") if os.path.exists(path)]
        if not found:
            break
        paths += found
    return Grant(_devices(*paths))


def _gpu(_: Caller) -> Grant:
    nodes = sorted(entry.path for entry in _entries(_DEVICES) if "nvidia" in entry.name)
    files = tuple(_nvidia_files()) if nodes else ()
    variables = (("LD_LIBRARY_PATH", _LIBRARIES),) if files else ()
    return Grant((*_devices("/dev/dri", *nodes), *_read_only(*files)), variables)


def _nvidia_files() -> Iterator[str]:
    """Find what the proprietary driver keeps outside of the kernel; the image's own can't match."""
    for place in _NVIDIA_PLACES:
        if os.path.realpath(place) != place:
            continue  # a link to a place that is searched anyway
        for name in sorted(entry.name for entry in _entries(place)):
            if _NVIDIA.search(name) and not _NOT_NVIDIA.search(name):
                yield os.path.join(place, name)


def _entries(directory: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def _always(*binds: Bind) -> Callable[[Caller], Grant]:
    return lambda _: Grant(binds)


# dev comes last: it replaces all of /dev, with whatever was bound there before.
_PERMITS: Final[tuple[tuple[Permission, Callable[[Caller], Grant]], ...]] = (
    (Permission.HOME, _home),
    (Permission.MEDIA, _always(*_writable("/media", "/run/media", "/mnt"))),
    (Permission.AUDIO, _audio),
    (Permission.WAYLAND, _wayland),
    (Permission.XORG, _xorg),
    (Permission.DBUS_USER, _session_bus),
    (
        Permission.DBUS_SYSTEM,
        _always(*_writable("/run/dbus/system_bus_socket"), *_read_only(_MACHINE)),
    ),
    (Permission.UDEV, _always(*_writable("/run/udev"))),
    (Permission.INPUT, _always(*_devices("/dev/input", "/dev/uinput"))),
    (Permission.USB, _always(*_devices("/dev/bus/usb", "/dev/usb"))),
    (
        Permission.NETWORK,
        _always(
            *_read_only("/etc/host.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf")
        ),
    ),
    (Permission.SHM, _always(*_devices("/dev/shm"))),  # noqa: S108 - it is meant to be the host's
    (Permission.OPTICAL, _optical),
    (Permission.GPU, _gpu),
    (Permission.DEV, _always(*_devices("/dev"))),
)
