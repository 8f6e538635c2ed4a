"""The icons of an image in the theme hicolor, which every desktop falls back to.

https://specifications.freedesktop.org/icon-theme-spec/
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Final

from fimd.flatimage.settings import Desktop, Icon

SIZES: Final = (16, 22, 24, 32, 48, 64, 96, 128, 256)
_SECONDS: Final = 30.0
GENERIC: Final = b"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">
  <path fill="#3a6ea5" d="M32 38 4 48l28 10 28-10z"/>
  <path fill="#5a8fc7" d="M32 26 4 36l28 10 28-10z"/>
  <path fill="#8ab4de" d="M32 6 4 22l28 12 28-12z"/>
</svg>
"""
"""Three layers: the icon of images in general."""


def paths(share: str, desktop: Desktop, *, scalable: bool) -> Iterator[tuple[str, int]]:
    """Yield where the icons of an image are below XDG_DATA_HOME, and their size; 0 for an SVG."""
    folders = [("scalable", 0)] if scalable else [(f"{size}x{size}", size) for size in SIZES]
    ending = "svg" if scalable else "png"
    for folder, size in folders:
        theme = os.path.join(share, "icons", "hicolor", folder)
        yield os.path.join(theme, "apps", f"flatimage_{desktop.name}.{ending}"), size
        name = f"application-flatimage_{desktop.name}.{ending}"
        yield os.path.join(theme, "mimetypes", name), size


def generic_paths(share: str) -> Iterator[str]:
    """Yield where the icons of images in general are."""
    theme = os.path.join(share, "icons", "hicolor", "scalable")
    yield os.path.join(theme, "apps", "flatimage.svg")
    yield os.path.join(theme, "mimetypes", "application-flatimage.svg")


def install(share: str, desktop: Desktop, icon: Icon) -> None:
    """Write the icons that are not there yet. Raises OSError."""
    scaled: dict[int, bytes] = {}
    for path, size in paths(share, desktop, scalable=icon.extension == "svg"):
        if os.path.exists(path):
            continue
        if size not in scaled:
            scaled[size] = _scaled(icon, size) if size else icon.data
        write(path, scaled[size])
    install_generic(share)


def install_generic(share: str) -> None:
    """Write the icons of images in general that are not there yet. Raises OSError."""
    for path in generic_paths(share):
        if not os.path.exists(path):
            write(path, GENERIC)


def write(path: str, data: bytes) -> None:
    """Write a file at once, for those who read it meanwhile. Raises OSError."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".flatimage-", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _scaled(icon: Icon, size: int) -> bytes:
    """Return a PNG of that size; where no program makes one, the icon as it is.

    Desktops scale an icon that has not the size of its folder.
    """
    program = shutil.which("magick") or shutil.which("convert")
    if program is None:
        return icon.data
    geometry = f"{size}x{size}"
    options = [
        "-background",
        "none",
        "-resize",
        geometry,
        "-gravity",
        "center",
        "-extent",
        geometry,
    ]
    try:
        done = subprocess.run(
            [program, f"{icon.extension}:-", *options, "png:-"],
            input=icon.data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return icon.data
    return done.stdout if done.returncode == 0 and done.stdout else icon.data
