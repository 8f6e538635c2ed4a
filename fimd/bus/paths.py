"""The bus name, and where the objects are.

Identifiers are of fixed width: none is the beginning of another, which dbus-next's clients would
take for its child.
"""

from typing import Final

BUS_NAME: Final = "org.flatimage.Fim1"
ROOT: Final = "/org/flatimage/Fim1"
SEARCH_PROVIDER: Final = f"{ROOT}/SearchProvider"
RUNNER: Final = f"{ROOT}/Runner"


def image_path(identifier: str) -> str:
    """Return the object path of an image."""
    return f"{ROOT}/image/{identifier}"


def layer_path(identifier: str) -> str:
    """Return the object path of a layer."""
    return f"{ROOT}/layer/{identifier}"


def job_path(identifier: str) -> str:
    """Return the object path of a job."""
    return f"{ROOT}/job/{identifier}"


def instance_path(identifier: str) -> str:
    """Return the object path of an instance."""
    return f"{ROOT}/instance/{identifier}"


def launcher_name(identifier: str) -> str:
    """Return the bus name of an image's launcher, by the image's identifier."""
    return f"{BUS_NAME}.App.i{identifier}"


def launcher_path(identifier: str) -> str:
    """Return the object path of an image's launcher: its bus name, as desktops derive it."""
    return f"/{launcher_name(identifier).replace('.', '/')}"
