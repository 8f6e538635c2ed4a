"""The launcher of an image: an entry in the desktop's menu that starts it by D-Bus.

The entry's file is called by the launcher's bus name, as DBusActivatable demands, and an activation
file lets the bus start the daemon for it. What cannot start it by D-Bus executes the image.

https://specifications.freedesktop.org/desktop-entry-spec/
"""

import os
from collections.abc import Iterator
from typing import Final

from fimctl.desktop import entry, icons, mime
from fimctl.errors import ClientError
from fimctl.installation import programs
from fimd.base.places import image_id
from fimd.bus.paths import launcher_name
from fimd.flatimage.settings import Desktop, Icon, Integration

_GENERIC_ICON: Final = "flatimage"
_PARTS_OF: Final = {"Audio": "AudioVideo", "Video": "AudioVideo"}
"""Categories that the menu specification wants another one beside."""


def entry_path(share: str, image: str) -> str:
    """Return where the entry of an image, a real path, is below XDG_DATA_HOME."""
    return os.path.join(share, "applications", f"{launcher_name(image_id(image))}.desktop")


def activation_path(share: str, image: str) -> str:
    """Return where the bus finds who answers for the launcher."""
    return os.path.join(share, "dbus-1", "services", f"{launcher_name(image_id(image))}.service")


def is_installed(share: str, image: str) -> bool:
    """Tell whether an image, a real path, has a launcher."""
    return os.path.exists(entry_path(share, image))


def described(image: str, stored: Desktop | None) -> Desktop:
    """Return how an image is shown that may say nothing of that itself."""
    if stored is not None:
        return stored
    name = os.fsencode(os.path.basename(image).removesuffix(".flatimage")).decode(errors="replace")
    return Desktop("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name))


def text(image: str, desktop: Desktop, *, icon: str, in_terminal: bool) -> str:
    """Return the entry of an image.

    An image that runs a shell gets a terminal, which nobody but the desktop can give it.
    """
    categories = list(dict.fromkeys(_with_parents(sorted(desktop.categories))))
    lines = [
        "[Desktop Entry]",
        "Type=Application",
        f"Name={entry.value(desktop.name)}",
        "Comment=FlatImage application",
        f'Exec="{entry.quoted(image)}" %F',
        f"TryExec={entry.value(image)}",
        f"Icon={entry.value(icon)}",
        "Terminal=true" if in_terminal else "DBusActivatable=true",
    ]
    if categories:
        lines.append(f"Categories={''.join(f'{entry.value(item)};' for item in categories)}")
    return "\n".join([*lines, ""])


def _with_parents(categories: list[str]) -> Iterator[str]:
    for category in categories:
        if category in _PARTS_OF:
            yield _PARTS_OF[category]
        if category and ";" not in category:
            yield category


def install(
    share: str, image: str, desktop: Desktop, icon: Icon | None, *, in_terminal: bool
) -> Iterator[str]:
    """Write the launcher of an image, a real path; yield each file that counts. Raises OSError."""
    if icon is not None:
        icons.install(share, desktop, icon)
    icons.install_generic(share)
    icons.write(mime.generic_path(share), mime.GENERIC.encode())
    yield mime.generic_path(share)
    mime.update_database(share)
    name = f"flatimage_{desktop.name}" if icon is not None else _GENERIC_ICON
    written = text(image, desktop, icon=name, in_terminal=in_terminal)
    if not in_terminal:
        service = (
            "[D-BUS Service]",
            f"Name={launcher_name(image_id(image))}",
            f"Exec={programs()}/fimd",
            "SystemdService=fimd.service",
            "",
        )
        icons.write(activation_path(share, image), "\n".join(service).encode())
        yield activation_path(share, image)
    icons.write(entry_path(share, image), os.fsencode(written))
    yield entry_path(share, image)
    _withdraw(entry.path(share, desktop), entry.text(image, desktop))


def _withdraw(path: str, own: str) -> None:
    """Remove the entry that starts have written for the same image: one in the menu is enough."""
    try:
        with open(path, "rb") as file:
            same = file.read(1 << 20) == os.fsencode(own)
    except OSError:
        return
    if same:
        os.unlink(path)


def uninstall(share: str, image: str) -> Iterator[str]:
    """Remove the launcher of an image that may be gone; yield each file. Raises ClientError."""
    path = entry_path(share, image)
    shown = _icon_in(path)
    for file in (path, activation_path(share, image)):
        if _removed(file):
            yield file
    name = shown.removeprefix(f"{_GENERIC_ICON}_")
    desktop = Desktop(name, integrations=frozenset({Integration.ICON}))
    if name == shown or os.path.exists(entry.path(share, desktop)):
        return  # the icon of images in general, or one that a start's entry shows too
    for scalable in (True, False):
        for file, _ in icons.paths(share, desktop, scalable=scalable):
            _removed(file)


def _icon_in(path: str) -> str:
    """Return the name of the icon that an entry shows."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return ""
    found = [line.removeprefix("Icon=") for line in lines if line.startswith("Icon=")]
    name = found[0].replace("\\\\", "\\") if found else ""
    return "" if "/" in name else name


def _removed(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ClientError(f"{path} can't be removed: {error.strerror}") from error
    return True
