"""Bringing an image into the desktop at each start, and out of it again."""

import os
import shutil
import subprocess
from collections.abc import Iterator

from fimctl import messages
from fimctl.desktop import entry, icons, launcher, mime
from fimctl.errors import ClientError
from fimctl.stored import read
from fimd.base.places import data_home
from fimd.flatimage.reserved import DESKTOP, ICON
from fimd.flatimage.settings import Desktop, Icon, Integration


def integrate(image: str, *, notify: bool) -> None:
    """Write what the image asks for, where it is not there yet. No failure keeps it from starting.

    `notify` says whether the start is to be told.
    """
    try:
        image = os.path.realpath(image)
        desktop = read(image, DESKTOP)
        if desktop is None:
            return
        _write(image, desktop)
        if notify:
            _tell(desktop)
    except (ClientError, OSError) as error:
        messages.debug(f"Could not perform desktop integration: {error}")


def _write(image: str, desktop: Desktop) -> None:
    folder = data_home()
    if Integration.ENTRY in desktop.integrations and not launcher.is_installed(folder, image):
        icons.write(entry.path(folder, desktop), os.fsencode(entry.text(image, desktop)))
    if Integration.MIMETYPE in desktop.integrations:
        _write_types(folder, image, desktop)
    if Integration.ICON in desktop.integrations and not _has_icons(folder, desktop):
        icon = read(image, ICON)
        if icon is not None:
            icons.install(folder, desktop, icon)


def _has_icons(folder: str, desktop: Desktop) -> bool:
    """Tell whether every icon is there, without reading the one in the image."""
    sets = (icons.paths(folder, desktop, scalable=scalable) for scalable in (True, False))
    own = any(all(os.path.exists(path) for path, _ in paths) for paths in sets)
    return own and all(map(os.path.exists, icons.generic_paths(folder)))


def _write_types(folder: str, image: str, desktop: Desktop) -> None:
    path = mime.path(folder, desktop)
    try:
        with open(path, errors="surrogateescape") as file:
            known = mime.names_image(file.read(), image)
    except OSError:
        known = False
    if known:
        messages.debug("Skipping mime database update")
        return
    icons.write(path, os.fsencode(mime.text(image, desktop)))
    icons.write(mime.generic_path(folder), mime.GENERIC.encode())
    messages.debug(f"Updating mime database '{mime.folder(folder)}'")
    mime.update_database(folder)


def clean(desktop: Desktop, icon: Icon | None) -> Iterator[str]:
    """Remove what `integrate` wrote for an image, and yield what is done. Raises ClientError."""
    folder = data_home()
    if Integration.ENTRY in desktop.integrations:
        yield _remove(entry.path(folder, desktop))
    if Integration.MIMETYPE in desktop.integrations:
        yield _remove(mime.path(folder, desktop))
        yield "Updating mime database"
        mime.update_database(folder)
    if Integration.ICON in desktop.integrations:
        scalable = icon is not None and icon.extension == "svg"
        for path, _ in icons.paths(folder, desktop, scalable=scalable):
            yield _remove(path)


def _remove(path: str) -> str:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ClientError(f"{path} can't be removed: {error.strerror}") from error
    return f"Removed file '{path}'"


def _tell(desktop: Desktop) -> None:
    """Show a notification, from a process that is no child of the sandbox."""
    program = shutil.which("notify-send")
    if program is None:
        return
    message = f"Started '{desktop.name}' FlatImage"
    process = os.fork()
    if process == 0:
        try:
            subprocess.Popen(
                [program, "-i", f"flatimage_{desktop.name}", "--", message],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os._exit(0)
    os.waitpid(process, 0)
