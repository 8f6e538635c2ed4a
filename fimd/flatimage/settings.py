"""The settings that an image carries, as values, and as FlatImage encodes them.

Everything decoded here comes from a file that anybody may have made: each decoder takes bytes that
are bounded already, and raises ValueError, with a reason, for what it does not accept.
"""

import enum
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

ICON_DATA_LIMIT: Final = (1 << 20) - 12
ICON_EXTENSIONS: Final = ("png", "svg", "jpg")


class Permission(enum.IntFlag, boundary=enum.KEEP):
    """What of the host the sandbox shows. Bits that a newer FlatImage may set are kept."""

    HOME = 1 << 0
    MEDIA = 1 << 1
    AUDIO = 1 << 2
    WAYLAND = 1 << 3
    XORG = 1 << 4
    DBUS_USER = 1 << 5
    DBUS_SYSTEM = 1 << 6
    UDEV = 1 << 7
    USB = 1 << 8
    INPUT = 1 << 9
    GPU = 1 << 10
    NETWORK = 1 << 11
    DEV = 1 << 12
    SHM = 1 << 13
    OPTICAL = 1 << 14
    PROCESSES = 1 << 63
    """The host's processes, seen and signalled. FlatImage, which always shows them, has no such
    permission: its own grow from the other end, it keeps this bit, and does not name it."""


ON_REQUEST: Final = Permission.PROCESSES
"""What nobody gets by asking for all: each of these has to be named."""


class Unshare(enum.IntFlag, boundary=enum.KEEP):
    """The namespaces that the sandbox does not share with the host."""

    USER = 1 << 0
    IPC = 1 << 1
    PID = 1 << 2
    NET = 1 << 3
    UTS = 1 << 4
    CGROUP = 1 << 5


F = TypeVar("F", Permission, Unshare)


def without(flags: F, removed: F) -> F:
    """`flags` less `removed`. Unlike `flags & ~removed`, it keeps bits that have no name here."""
    return flags ^ (flags & removed)


class Overlay(enum.IntEnum):
    """The kind of writable overlay."""

    BWRAP = 2
    OVERLAYFS = 4
    UNIONFS = 8


class Casefold(enum.IntEnum):
    """Whether names are found in any case. FlatImage knows off and on; to it, preserve is on."""

    OFF = 0
    ON = 1
    PRESERVE = 2
    """In any case, but with the spelling that each name was given."""


class Integration(enum.StrEnum):
    """What of an image the desktop shows, in FlatImage's order."""

    ENTRY = "ENTRY"
    MIMETYPE = "MIMETYPE"
    ICON = "ICON"


class BindingType(enum.StrEnum):
    """How a path of the host is bound into the sandbox."""

    RO = "ro"
    RW = "rw"
    DEV = "dev"


@dataclass(frozen=True, slots=True)
class Desktop:
    """How the image presents itself to a desktop."""

    name: str
    categories: tuple[str, ...] = ()
    integrations: frozenset[Integration] = frozenset()


@dataclass(frozen=True, slots=True)
class Boot:
    """The program that the image runs when none is named, and its first arguments."""

    program: str
    args: tuple[str, ...] = ()


DEFAULT_BOOT: Final = Boot("bash")
"""What an image runs that says nothing."""


@dataclass(frozen=True, slots=True)
class Icon:
    """A picture: its bytes, and `png`, `svg` or `jpg`."""

    extension: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Binding:
    """A path of the host shown inside. Neither path is expanded yet."""

    type: BindingType
    src: str
    dst: str


def encode_json(value: Any) -> bytes:
    """FlatImage's form of JSON: two spaces of indent, keys in byte order."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


def decode_json(data: bytes) -> Any:
    """The value of some JSON. Strings that are not UTF-8 come as `os.fsdecode` gives them."""
    try:
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from None


def _text(value: Any, what: str) -> str:
    """`value` where it is a string that a program can be given."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is no string")  # noqa: TRY004 - one error for all hostile data
    if "\0" in value:
        raise ValueError(f"{what} holds a NUL character")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half a surrogate pair") from None
    return value


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object")  # noqa: TRY004
    return value


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is no list")  # noqa: TRY004
    return tuple(_text(item, f"an item of {what}") for item in value)


def encode_environment(variables: Mapping[str, str]) -> bytes:
    """`{"KEY": "value", ...}`."""
    return encode_json({_text(k, "a name"): _text(v, f"{k!r}") for k, v in variables.items()})


def decode_environment(data: bytes) -> dict[str, str]:
    """The variables, by name, unexpanded."""
    return {
        _text(key, "a name"): _text(value, f"{key!r}")
        for key, value in _object(decode_json(data), "it").items()
    }


def encode_boot(boot: Boot) -> bytes:
    """`{"args": [...], "program": ...}`."""
    args = [_text(word, "an argument") for word in boot.args]
    return encode_json({"args": args, "program": _text(boot.program, "the program")})


def decode_boot(data: bytes) -> Boot:
    """The boot program."""
    value = _object(decode_json(data), "it")
    return Boot(_text(value.get("program"), '"program"'), _texts(value.get("args", []), '"args"'))


def encode_bindings(bindings: Sequence[Binding]) -> bytes:
    """`{"0": {"dst", "src", "type"}, ...}`, numbered from 0."""
    return encode_json(
        {
            str(index): {
                "dst": _text(binding.dst, "a destination"),
                "src": _text(binding.src, "a source"),
                "type": binding.type.value,
            }
            for index, binding in enumerate(bindings)
        }
    )


def decode_bindings(data: bytes) -> tuple[Binding, ...]:
    """The bindings in the order of their numbers."""
    numbered = {}
    for key, entry in _object(decode_json(data), "it").items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise ValueError(f"{key!r} is no index")
        value = _object(entry, f"binding {key}")
        kind = _text(value.get("type"), f'"type" of binding {key}')
        if kind not in set(BindingType):
            raise ValueError(f"{kind!r} is no type of binding (ro, rw, dev)")
        numbered[int(key)] = Binding(
            BindingType(kind),
            _text(value.get("src"), f'"src" of binding {key}'),
            _text(value.get("dst"), f'"dst" of binding {key}'),
        )
    return tuple(numbered[index] for index in sorted(numbered))


def encode_remote(url: str) -> bytes:
    """`{"url": ...}`."""
    return encode_json({"url": _text(url, "the URL")})


def decode_remote(data: bytes) -> str:
    """The URL."""
    return _text(_object(decode_json(data), "it").get("url"), '"url"')


def _check_name(name: str) -> str:
    # The name becomes part of file names and of a line in a desktop entry.
    if "/" in name:
        raise ValueError("Application name cannot contain the '/' character")
    if not name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ValueError("Application name cannot be empty or contain control characters")
    return name


def encode_desktop(desktop: Desktop) -> bytes:
    """`{"categories": [sorted], "integrations": [...], "name": ...}`."""
    integrations = [item.value for item in Integration if item in desktop.integrations]
    return encode_json(
        {
            "categories": sorted(_text(item, "a category") for item in desktop.categories),
            "integrations": integrations,
            "name": _check_name(_text(desktop.name, "the name")),
        }
    )


def decode_desktop(data: bytes) -> Desktop:
    """What was set up for the desktop."""
    value = _object(decode_json(data), "it")
    items = set(_texts(value.get("integrations", []), '"integrations"')) - {"NONE"}
    if not items <= set(Integration):
        raise ValueError('"integrations" holds something else than ENTRY, MIMETYPE, ICON')
    return Desktop(
        _check_name(_text(value.get("name"), '"name"')),
        _texts(value.get("categories", []), '"categories"'),
        frozenset(map(Integration, items)),
    )


# The icon's field: char ext[4], data, u64 size of data
_ICON: Final = struct.Struct(f"<4s{ICON_DATA_LIMIT}sQ")


def encode_icon(icon: Icon) -> bytes:
    """The whole field of the icon."""
    if icon.extension not in ICON_EXTENSIONS:
        raise ValueError(f"Icon extension '{icon.extension}' is not supported")
    return _ICON.pack(icon.extension.encode(), icon.data, len(icon.data))


def decode_icon(data: bytes) -> Icon | None:
    """The icon in its field, None where there is none."""
    extension, content, size = _ICON.unpack(data)
    if size == 0:
        return None
    if size > ICON_DATA_LIMIT:
        raise ValueError(f"its size is {size}, and {ICON_DATA_LIMIT} is the most that fits")
    name = extension.rstrip(b"\0").decode("latin-1")
    if name not in ICON_EXTENSIONS:
        raise ValueError(f"its extension is {name!r}")
    return Icon(name, content[:size])
