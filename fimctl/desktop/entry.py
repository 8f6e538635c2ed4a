"""The desktop entry of an image, byte for byte as FlatImage writes it.

https://specifications.freedesktop.org/desktop-entry-spec/
"""

import os
from dataclasses import replace
from typing import Final

from fimd.base.texts import label
from fimd.flatimage.settings import Desktop

_OF_LISTS: Final = frozenset(";,\\")
"""What ends an item of a list, or might."""


def path(share: str, desktop: Desktop) -> str:
    """Return where the entry is, below XDG_DATA_HOME."""
    return os.path.join(share, "applications", f"flatimage-{desktop.name}.desktop")


def text(image: str, desktop: Desktop) -> str:
    """Return the entry of the image, which is a real path. No newline ends it."""
    name = value(desktop.name)
    return "\n".join(
        (
            "[Desktop Entry]",
            f"Name={name}",
            "Type=Application",
            f'Comment=FlatImage distribution of "{name}"',
            f'Exec="{quoted(image)}" %F',
            f"Icon=flatimage_{name}",
            f"MimeType={mime_type(desktop)};",
            f"Categories={''.join(f'{value(item)};' for item in sorted(desktop.categories))}",
        )
    )


def value(text: str) -> str:
    """Escape a string as the value of a key."""
    text = _in_a_line(text.replace("\\", "\\\\"))
    return f"\\s{text[1:]}" if text.startswith(" ") else text


def quoted(path: str) -> str:
    """Escape what is not itself between the quotes of an Exec line, and in the line of a value."""
    for character in '\\"`$':
        path = path.replace(character, f"\\{character}")
    return _in_a_line(path.replace("\\", "\\\\").replace("%", "%%"))


def _in_a_line(text: str) -> str:
    for character, escape in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(character, escape)
    return text


def mime_type(desktop: Desktop) -> str:
    """Return the MIME type of an image's own files, one type whatever its name is."""
    return "application/flatimage_" + "".join(
        "_" if character in _OF_LISTS else character for character in desktop.name
    )


def presentable(desktop: Desktop) -> Desktop:
    """Return what an image says of itself as it may become files and lines of the desktop's."""
    categories = (item for item in desktop.categories if item.isprintable() and ";" not in item)
    return replace(desktop, name=label(desktop.name), categories=tuple(categories))
