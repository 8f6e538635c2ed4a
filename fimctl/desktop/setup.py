"""The JSON file that sets an image up for the desktop, and the icon that it names."""

import os
import urllib.request
from typing import Any, Final

from fimctl.errors import ClientError
from fimd.flatimage.settings import ICON_DATA_LIMIT, Desktop, Icon, Integration, decode_json

_MOST: Final = 1 << 20
"""Bytes of a JSON file that are read: what is stored of it has less than 4096."""
_SECONDS: Final = 30.0
_EXTENSIONS: Final = {"svg": "svg", "png": "png", "jpg": "jpg", "jpeg": "jpg"}
_CONTEXT: Final = "Failed to setup desktop integration"


def read_setup(path: str) -> tuple[Desktop, Icon]:
    """Return what a file says. Raises ClientError."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST)
    except OSError as error:
        raise ClientError(
            f"Failed to open file '{path}' for desktop integration", context=_CONTEXT
        ) from error
    try:
        name, icon, categories, items = _parse(decode_json(data))
    except ValueError as error:
        raise ClientError("Failed to deserialize json", context=str(error)) from error
    if "/" in name:
        raise ClientError("Application name cannot contain the '/' character", context=_CONTEXT)
    return Desktop(name, categories, items), _read_icon(icon)


def _parse(value: Any) -> tuple[str, str, tuple[str, ...], frozenset[Integration]]:
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - one error for all that is wrong
    name, icon = value.get("name"), value.get("icon")
    if not isinstance(name, str) or not isinstance(icon, str) or not name:
        raise ValueError("'name' and 'icon' have to be texts")
    categories = _texts(value.get("categories"), "categories")
    items = _texts(value.get("integrations", [item.value for item in Integration]), "integrations")
    upper = {item.upper() for item in items} - {"NONE"}
    if not upper <= set(Integration):
        raise ValueError("'integrations' may hold ENTRY, MIMETYPE and ICON")
    return name, icon, categories, frozenset(map(Integration, upper))


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"'{what}' has to be a list of texts")
    return tuple(value)


def _read_icon(source: str) -> Icon:
    ending = os.path.splitext(source)[1]
    is_url = source.startswith(("http://", "https://"))
    if not is_url:
        try:
            size = os.stat(source).st_size
        except OSError as error:
            raise ClientError(
                f"Could not get size of file '{source}': {error.strerror}", context=_CONTEXT
            ) from error
        _check_size(size)
    extension = _EXTENSIONS.get(ending.lower().removeprefix("."))
    if extension is None:
        raise ClientError(f"Icon extension '{ending}' is not supported", context=_CONTEXT)
    data = _download(source) if is_url else _read(source)
    _check_size(len(data))
    return Icon(extension, data)


def _check_size(size: int) -> None:
    if size > ICON_DATA_LIMIT:
        raise ClientError(f"File is too large, '{size}' bytes", context=_CONTEXT)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(ICON_DATA_LIMIT + 1)
    except OSError as error:
        raise ClientError(f"{path} can't be read: {error.strerror}", context=_CONTEXT) from error


def _download(url: str) -> bytes:
    try:
        # the scheme was checked: http or https
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310
            data: bytes = answer.read(ICON_DATA_LIMIT + 1)
            return data
    except (OSError, ValueError) as error:
        raise ClientError(f"{url} can't be downloaded: {error}", context=_CONTEXT) from error
