"""The MIME types of images, byte for byte as FlatImage writes them.

https://specifications.freedesktop.org/shared-mime-info-spec/
"""

import os
import shutil
import subprocess
from typing import Final

from fimd.flatimage.settings import Desktop

_SECONDS: Final = 30.0
_HEAD: Final = """\
<?xml version="1.0" encoding="UTF-8"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
"""

GENERIC: Final = (
    _HEAD
    + """\
  <mime-type type="application/flatimage">
    <comment>FlatImage Application</comment>
    <magic>
      <match value="ELF" type="string" offset="1">
        <match value="0x46" type="byte" offset="8">
          <match value="0x49" type="byte" offset="9">
            <match value="0x01" type="byte" offset="10"/>
          </match>
        </match>
      </match>
    </magic>
    <glob weight="50" pattern="*.flatimage"/>
    <sub-class-of type="application/x-executable"/>
    <generic-icon name="application-flatimage"/>
  </mime-type>
</mime-info>
"""
)
"""The type of every image."""


def folder(share: str) -> str:
    """Return the database of MIME types below XDG_DATA_HOME."""
    return os.path.join(share, "mime")


def path(share: str, desktop: Desktop) -> str:
    """Return where an image's own type is."""
    return os.path.join(folder(share), "packages", f"flatimage-{desktop.name}.xml")


def generic_path(share: str) -> str:
    """Return where the type of every image is."""
    return os.path.join(folder(share), "packages", "flatimage.xml")


def text(image: str, desktop: Desktop) -> str:
    """Return the type of an image by its file name. No newline ends it."""
    return (
        _HEAD
        + f"""\
  <mime-type type="application/flatimage_{_escaped(desktop.name)}">
    <comment>FlatImage Application</comment>
    <glob weight="100" pattern="{_escaped(os.path.basename(image))}"/>
    <sub-class-of type="application/x-executable"/>
    <generic-icon name="application-flatimage"/>
  </mime-type>
</mime-info>"""
    )


def names_image(stored: str, image: str) -> bool:
    """Tell whether the type in a file is already that of this image's file name."""
    return f'pattern="{_escaped(os.path.basename(image))}"' in stored


def update_database(share: str) -> bool:
    """Have the desktop read the types anew; tell whether that could be done."""
    return _run("update-mime-database", folder(share))


def update_handlers(share: str) -> bool:
    """Have the desktop read anew which entries open which types; tell whether that was done."""
    return _run("update-desktop-database", os.path.join(share, "applications"))


def _run(name: str, folder: str) -> bool:
    program = shutil.which(name)
    if program is None:
        return False
    try:
        done = subprocess.run(
            [program, folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _escaped(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text
