"""`fimctl desktop`, and `fim-desktop` of an image: how it shows in the desktop's menu."""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fimctl import messages, session_bus
from fimctl.daemon import BUS_NAME, Daemon
from fimctl.desktop import entry, launcher, mime
from fimctl.desktop.integration import clean
from fimctl.desktop.setup import read_setup
from fimctl.errors import ClientError, DaemonError, WordsError
from fimctl.stored import print_stored, read, update, write
from fimctl.table import path_text, print_json, print_table, say
from fimctl.words import operation, refuse_trailing
from fimd.base.places import data_home
from fimd.base.texts import printable
from fimd.flatimage.reserved import BOOT, DESKTOP, ICON
from fimd.flatimage.settings import Desktop, Icon, Integration, encode_desktop

Say = Callable[[str], None]

_CATALOGUE: Final = f"{BUS_NAME}.Catalogue"
_DUMPED: Final = ("entry", "mimetype", "icon")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("desktop", help="how an image shows in the desktop's menu")
    actions = parser.add_subparsers(
        required=True, metavar="install|uninstall|list|setup|enable|dump|clean"
    )
    action = actions.add_parser(
        "install",
        help="give an image a launcher",
        description="Write a launcher with the image's icon to the desktop's menu, and the MIME "
        "type of images, below XDG_DATA_HOME. An image that runs a shell, having no boot command, "
        "gets a terminal; all others start by D-Bus.",
    )
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: install(given.image))
    action = actions.add_parser(
        "uninstall",
        help="remove an image's launcher",
        description="Remove an image's launcher. How often it was used is not forgotten. The image "
        "itself may be gone already.",
    )
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: uninstall(given.image))
    action = actions.add_parser(
        "list",
        help="list the images that launchers and searches find",
        description="List the images that were run or have a launcher: those that run first, then "
        "those that were used most.",
    )
    action.add_argument("--json", action="store_true", help="print JSON")
    action.set_defaults(func=list_images)
    action = actions.add_parser(
        "setup",
        help="store name, icon and categories",
        description="FILE is JSON: name, icon (a path or a URL: png, svg, jpg), categories (a "
        "list), and perhaps integrations (a list of ENTRY, MIMETYPE, ICON).",
    )
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("file", metavar="FILE")
    action.set_defaults(func=lambda given: setup(given.image, given.file))
    action = actions.add_parser("enable", help="choose what each start writes")
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("items", metavar="entry,mimetype,icon|none")
    action.set_defaults(func=lambda given: enable(given.image, parse_items(given.items)))
    action = actions.add_parser("dump", help="print the entry or the type, or save the icon")
    action.add_argument("image", metavar="IMAGE")
    action.add_argument("what", choices=_DUMPED)
    action.add_argument("file", metavar="FILE", nargs="?", help="where the icon goes")
    action.set_defaults(func=_dump_given)
    action = actions.add_parser("clean", help="remove what the starts have written")
    action.add_argument("image", metavar="IMAGE")
    action.set_defaults(func=lambda given: remove(given.image, say))


def _dump_given(given: Any) -> int:
    if given.what != "icon":
        return dump(given.image, given.what)
    if given.file is None:
        raise WordsError("FILE is missing: where the icon is to go")
    return dump_icon(given.image, given.file)


def install(image: str) -> int:
    """Write an image's launcher, and have the daemon answer for it."""
    real = os.path.realpath(image)
    in_terminal = read(real, BOOT) is None
    desktop = launcher.described(real, read(real, DESKTOP))
    icon = read(real, ICON)
    try:
        for path in launcher.install(data_home(), real, desktop, icon, in_terminal=in_terminal):
            print(f"wrote {printable(path)}")
    except OSError as error:
        raise ClientError(f"{error.filename} can't be written: {error.strerror}") from error
    with Daemon() as daemon:
        daemon.call(_CATALOGUE, "Register", "aya{sv}", (os.fsencode(real), {}))
    list(session_bus.reload())
    return 0


def uninstall(image: str) -> int:
    """Remove an image's launcher."""
    real = os.path.realpath(image)
    removed = list(launcher.uninstall(data_home(), real))
    for path in removed:
        print(f"removed {printable(path)}")
    with Daemon() as daemon:
        try:
            options = {"keep_uses": ("b", True)}
            daemon.call(_CATALOGUE, "Forget", "aya{sv}", (os.fsencode(real), options))
        except DaemonError as error:
            if error.name != "NotFound" or not removed:
                raise
    list(session_bus.reload())
    return 0


def list_images(arguments: argparse.Namespace) -> int:
    """Print what launchers and searches find."""
    with Daemon() as daemon:
        [found] = daemon.call(_CATALOGUE, "ListImages", "a{sv}", ({},))
    images = [{key: value for key, (_, value) in image.items()} for image in found]
    if arguments.json:
        print_json(images)
        return 0
    print_table(
        ("RUNNING", "USES", "LAST USED", "LAUNCHER", "NAME", "IMAGE"),
        [
            (
                str(image["Running"]),
                str(image["Uses"]),
                _moment(image["LastUsed"]),
                "yes" if image["Registered"] else "no",
                printable(image["Name"]),
                path_text(bytes(image["Path"])),
            )
            for image in images
        ],
    )
    return 0


def _moment(microseconds: int) -> str:
    if not microseconds:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(microseconds / 1e6))


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-desktop setup <json> | enable <items> | dump <what> [file] | clean`."""
    verb, rest = operation(words, "Missing op for 'fim-desktop' (enable,setup,clean,dump)")
    if verb == "setup":
        return setup(image, _only(rest, "Missing argument for 'setup' (/path/to/file.json)"))
    if verb == "enable":
        missing = "Missing arguments for 'enable' (entry,mimetype,icon,none)"
        return enable(image, parse_items(_only(rest, missing)))
    if verb == "clean":
        refuse_trailing("fim-desktop", rest)
        return remove(image, messages.info)
    if verb == "dump":
        return _dump_words(image, rest)
    raise WordsError("Invalid desktop operation")


def _only(words: list[str], missing: str) -> str:
    if not words:
        raise WordsError(missing)
    refuse_trailing("fim-desktop", words[1:])
    return words[0]


def _dump_words(image: str, words: list[str]) -> int:
    if not words:
        raise WordsError("Missing arguments for 'dump' (entry,mimetype,icon)")
    what, *rest = words
    if what.lower() not in _DUMPED:
        raise WordsError("Invalid dump operation")
    if what.lower() == "icon":
        return dump_icon(image, _only(rest, "Missing argument for 'icon' (/path/to/dump/file)"))
    refuse_trailing("fim-desktop", rest)
    return dump(image, what.lower())


def parse_items(text: str) -> frozenset[Integration]:
    """Return the items of `entry,mimetype,icon` or `none`, in any case. Raises WordsError."""
    items = [item.upper() for item in text.split(",")]
    if not set(items) <= {*Integration, "NONE"}:
        raise WordsError("Invalid integration item")
    if "NONE" in items and len(items) > 1:
        raise WordsError("'none' option should not be used with others")
    return frozenset(Integration(item) for item in items if item != "NONE")


def setup(image: str, path: str) -> int:
    """Store what a JSON file says, and its icon; print what is stored."""
    desktop, icon = read_setup(path)
    try:
        text = encode_desktop(desktop)
    except ValueError as error:
        raise ClientError(str(error), context="Failed to setup desktop integration") from error
    write(image, ICON, icon)
    write(image, DESKTOP, desktop)
    print_stored(text)
    return 0


def enable(image: str, items: frozenset[Integration]) -> int:
    """Store what each start is to write, and print it."""

    def changed(stored: Desktop | None) -> Desktop:
        if stored is None:
            raise ClientError("Empty json data", context="Failed to enable desktop integration")
        return Desktop(stored.name, stored.categories, items)

    update(image, DESKTOP, changed)
    for item in [item.value for item in Integration if item in items] or ["NONE"]:
        print(item)
    return 0


def _configured(image: str, doing: str) -> Desktop:
    desktop = read(image, DESKTOP)
    if desktop is None:
        raise ClientError("Empty json data", context=f"Failed to {doing}")
    return desktop


def _stored_icon(image: str) -> Icon:
    icon = read(image, ICON)
    if icon is None:
        raise ClientError("Empty icon data", context="Failed to dump icon")
    return icon


def dump(image: str, what: str) -> int:
    """Print the desktop entry or the MIME type as a start would write it."""
    desktop = _configured(image, f"dump {what}")
    make = entry.text if what == "entry" else mime.text
    print_stored(os.fsencode(make(os.path.realpath(image), entry.presentable(desktop))))
    return 0


def dump_icon(image: str, path: str) -> int:
    """Save the icon; its extension is added where the name lacks it."""
    icon = _stored_icon(image)
    target = path if path.endswith(f".{icon.extension}") else f"{path}.{icon.extension}"
    try:
        Path(target).write_bytes(icon.data)
    except OSError as error:
        raise ClientError(f"{target} can't be written: {error.strerror}") from error
    return 0


def remove(image: str, say: Say) -> int:
    """Remove what the starts have written; what is stored stays."""
    desktop = _configured(image, "clean desktop integration")
    for done in clean(desktop, read(image, ICON)):
        say(done)
    return 0
