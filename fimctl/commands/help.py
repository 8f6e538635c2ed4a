"""`fim-help` of an image: what its commands do."""

import sys
from collections.abc import Mapping
from typing import Final

from fimctl.errors import WordsError

_TITLE: Final = "Flatimage - Portable Linux Applications"

TOPICS: Final[Mapping[str, tuple[str, str, str]]] = {
    "bind": (
        "Show paths of the host to the programs inside",
        "fim-bind add <ro|rw|dev> <src> <dst>\nfim-bind del <index>\nfim-bind list",
        "Paths may hold variables, as in '$HOME/Music', which each start expands. What is not "
        "there then is left out. A type is read only, writable, or with device files.",
    ),
    "boot": (
        "Choose the program that the image runs when none is named",
        "fim-boot set <program> [args...]\nfim-boot show\nfim-boot clear",
        "Words on the command line follow the stored arguments. The default is bash.",
    ),
    "casefold": (
        "Find file names in any case, as Windows programs expect",
        "fim-casefold <on|off|preserve>",
        "With on, new names are stored in lower case; with preserve they keep their spelling. "
        "FIM_CASEFOLD=1 switches it on for one start.",
    ),
    "desktop": (
        "Show the image in the desktop's menu",
        "fim-desktop setup <file.json>\nfim-desktop enable <entry,mimetype,icon|none>\n"
        "fim-desktop dump entry|mimetype\nfim-desktop dump icon <file>\nfim-desktop clean",
        "setup takes a JSON file with name, icon (png, svg or jpg), categories, and perhaps "
        "integrations. The next start writes the files below XDG_DATA_HOME; clean removes them.",
    ),
    "env": (
        "Choose environment variables for the programs inside",
        "fim-env add|set <KEY=VALUE...>\nfim-env del <KEY...>\nfim-env list\nfim-env clear",
        "set replaces all. Values may hold $VARIABLES of whoever starts the image, and "
        "$(commands), which are run inside; list shows what they are now, but for commands.",
    ),
    "exec": (
        "Run a program in the image, as yourself",
        "fim-exec <program> [args...]",
        "Its exit code is the program's, or 125 where it could not be started.",
    ),
    "help": ("Tell of a command", "fim-help [command]", "The command is named without 'fim-'."),
    "instance": (
        "List the running instances, or run a program in one",
        "fim-instance list\nfim-instance exec <index> <program> [args...]",
        "Indices count from 0, the oldest instance first.",
    ),
    "layer": (
        "Make layers, and keep changes in them",
        "fim-layer create <dir> <file>\nfim-layer add <file>\n"
        "fim-layer commit binary|layer|file <path>\nfim-layer list",
        "FIM_COMPRESSION_LEVEL is 0 (fast) to 9 (small), 7 by default.",
    ),
    "notify": (
        "Tell of each start by a notification",
        "fim-notify <on|off>",
        "The image has to be set up for the desktop: see fim-help desktop.",
    ),
    "overlay": (
        "Choose how changes to the image's files are kept",
        "fim-overlay set <bwrap|overlayfs|unionfs>\nfim-overlay show",
        "bwrap is the kernel's own and the fastest. FIM_OVERLAY chooses for one start.",
    ),
    "perms": (
        "Choose what of the host the programs inside see",
        "fim-perms add|del|set <a,b,...>\nfim-perms list\nfim-perms clear",
        "Permissions: all, or audio, dbus_system, dbus_user, dev, gpu, home, input, media, "
        "network, optical, processes, shm, udev, usb, wayland, xorg.",
    ),
    "recipe": (
        "Install packages by a recipe",
        "fim-recipe fetch|info|install <a,b,...>",
        "Recipes are not part of fimd.",
    ),
    "remote": (
        "Choose where recipes come from",
        "fim-remote set <url>\nfim-remote show\nfim-remote clear",
        "The address is stored for FlatImage; fimd itself does not use it.",
    ),
    "root": (
        "Run a program in the image, as root inside",
        "fim-root <program> [args...]",
        "It is uid 0 inside and yourself outside. FIM_ROOT=1 does that for other programs.",
    ),
    "unshare": (
        "Choose the namespaces that the image has for itself",
        "fim-unshare add|del|set <a,b,...>\nfim-unshare list\nfim-unshare clear",
        "Namespaces: all, or cgroup, ipc, net, pid, user, uts.",
    ),
    "version": (
        "Tell what the image is run by",
        "fim-version <short|full|deps>",
        "full and deps print JSON.",
    ),
}


def image_command(_image: str, words: list[str]) -> int:
    """Do `fim-help [topic]`."""
    if not words:
        sys.stderr.write(_usage())
        return 0
    if words[0] not in TOPICS:
        raise WordsError(f"Invalid argument for help command: {words[0]}")
    summary, usage, note = TOPICS[words[0]]
    print(f"{_TITLE}\n\nfim-{words[0]}: {summary}\n\nUsage:")
    for line in usage.splitlines():
        print(f"  {line}")
    print(f"\n{note}")
    return 0


def _usage() -> str:
    width = max(map(len, TOPICS))
    listed = "".join(
        f"  fim-{name.ljust(width)}  {summary}\n" for name, (summary, _, _) in TOPICS.items()
    )
    return (
        f"{_TITLE}\n\nUsage:\n  <image> [args...]            run the boot program\n"
        f"  <image> fim-<command> ...    one of these:\n\n{listed}\n"
        f"'<image> fim-help <command>' tells more of one.\n"
    )
