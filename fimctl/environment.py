"""What the variables FIM_* ask for. Every start reads them, so this imports little."""

from __future__ import annotations

import os

from fimd.base.places import beside, data_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

OVERLAYS: Final = ("bwrap", "overlayfs", "unionfs")

_SPECIAL: Final = frozenset("$`~'\"\\")  # what expansion would not leave as it is
_FORMER_LAYERS: Final = ("FIM_DIRS_LAYER", "FIM_FILES_LAYER")
_FORMER_OVERLAYS: Final = {"FIM_FUSE_UNIONFS": "unionfs", "FIM_FUSE_OVERLAYFS": "overlayfs"}
_FORMER: Final = (*_FORMER_LAYERS, *_FORMER_OVERLAYS)
"""What FlatImage 1.x has for FIM_LAYERS and FIM_OVERLAY; its images alone heed them."""


def options_of_environment(image: str) -> dict[str, tuple[str, Any]]:
    """Return what the environment asks of the daemon about an image, as options of D-Bus."""
    options = data_option(image)
    layers, overlay = layers_given(image), overlay_given(image)
    if layers:
        options["layers"] = ("aay", [os.fsencode(path) for path in layers])
    named = os.environ.get("FIM_OVERLAY")
    if named and named not in OVERLAYS:
        from fimctl import messages  # noqa: PLC0415 - a program starts without it

        messages.warning(f"FIM_OVERLAY is left out: {named} is none of {', '.join(OVERLAYS)}")
    if overlay:
        options["overlay"] = ("s", overlay)
    if casefold_given():
        options["casefold"] = ("s", "on")
    if os.environ.get("FIM_ROOT") == "1":
        options["root"] = ("b", True)
    return options


def data_option(image: str) -> dict[str, tuple[str, Any]]:
    """Return the option `data`, where the daemon could take another directory.

    It does not know the caller's XDG_DATA_HOME.
    """
    data = data_of(image)
    if not data_given() and data == beside(os.path.realpath(image)):
        return {}
    return {"data": ("ay", os.fsencode(data))}


def data_given() -> str | None:
    """Return FIM_DIR_DATA, None where it says nothing."""
    given = os.environ.get("FIM_DIR_DATA")
    return os.path.abspath(given) if given else None


def data_of(image: str) -> str:
    """Return the image's data directory, which FIM_DIR_DATA may move."""
    return data_given() or data_directory(os.path.realpath(image))


def layers_given(image: str) -> list[str]:
    """Return the files and directories of FIM_LAYERS."""
    layers = os.environ.get("FIM_LAYERS", "")
    if _is_told_as_former(image):
        layers = ":".join((layers, *(os.environ.get(name, "") for name in _FORMER_LAYERS)))
    if not _SPECIAL.isdisjoint(layers):
        from fimctl.expand import expand_own  # noqa: PLC0415 - most values are plain

        layers = expand_own(layers, os.environ)
    return [os.path.abspath(entry) for entry in layers.split(":") if entry]


def overlay_given(image: str) -> str | None:
    """Return the overlay of FIM_OVERLAY, None where it names none."""
    given = os.environ.get("FIM_OVERLAY")
    if given in OVERLAYS:
        return given
    if _is_told_as_former(image):
        for name, overlay in _FORMER_OVERLAYS.items():
            if os.environ.get(name) == "1":
                return overlay
    return None


def casefold_given() -> bool:
    """Tell whether FIM_CASEFOLD switches it on."""
    return os.environ.get("FIM_CASEFOLD") == "1"


def _is_told_as_former(image: str) -> bool:
    """Tell whether variables of FlatImage 1.x are there, and the image is one of it."""
    if os.environ.keys().isdisjoint(_FORMER):
        return False
    from fimd.stacks.data import is_former  # noqa: PLC0415 - few users have these variables

    return is_former(image)
