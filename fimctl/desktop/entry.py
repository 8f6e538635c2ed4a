"""The desktop entry of an image, byte for byte as FlatImage writes it.

https://specifications.freedesktop.org/desktop-entry-spec/
"""

import os

from fimd.flatimage.settings import Desktop


def path(share: str, desktop: Desktop) -> str:
    """Return where the entry is, below XDG_DATA_HOME."""
    return os.path.join(share, "applications", f"flatimage-{desktop.name}.desktop")


def text(image: str, desktop: Desktop) -> str:
    """Return the entry of the image, which is a real path. No newline ends it."""
    name = desktop.name
    return "\n".join(
        (
            "[Desktop Entry]",
            f"Name={name}",
            "Type=Application",
            f'Comment=FlatImage distribution of "{name}"',
            f'Exec="{quoted(image)}" %F',
            f"Icon=flatimage_{name}",
            f"MimeType=application/flatimage_{name};",
            f"Categories={''.join(f'{category};' for category in sorted(desktop.categories))}",
        )
    )


def value(text: str) -> str:
    """Escape a string as the value of a key."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"\\s{text[1:]}" if text.startswith(" ") else text


def quoted(path: str) -> str:
    """Escape what is not itself between the quotes of an Exec line, and in the line of a value."""
    for character in '\\"`$':
        path = path.replace(character, f"\\{character}")
    return path.replace("\\", "\\\\").replace("%", "%%").replace("\n", "\\n")
