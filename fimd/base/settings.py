"""What a user can set: built-in defaults, then ~/.config/fimd/fimd.toml, then FIMD_* variables."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from fimd.base.errors import InvalidArgumentError

ENGINES: Final = ("auto", "external", "embedded")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
DEFAULT_ORIGIN: Final = "default"
_LARGEST_FILE: Final = 1 << 20


def _setting(
    default: Any,
    about: str,
    *,
    allowed: tuple[str, ...] = (),
    between: tuple[float, float] = (0, 0),
    live: bool = False,
) -> Any:
    """Declare a setting; `live` tells that a running daemon takes it over when it reloads."""
    facts = {"about": about, "allowed": allowed, "between": between, "live": live}
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Settings:
    """The daemon's settings. Times are seconds, sizes MiB."""

    linger: float = _setting(
        20.0,
        "How long a layer that nobody uses stays mounted, in seconds.",
        between=(0, 86400),
        live=True,
    )
    engine: str = _setting(
        "auto",
        "Which DwarFS mounts layers: external where 'dwarfs' is installed (auto), or one of them.",
        allowed=ENGINES,
    )
    casefold_engine: str = _setting(
        "auto",
        "Which case-insensitive view: external where 'ciopfs' is installed (auto), or one of them.",
        allowed=ENGINES,
    )
    cache: int = _setting(
        128,
        "How much of one embedded layer's uncompressed blocks is kept in memory, in MiB.",
        between=(1, 65536),
    )
    store: int = _setting(
        20480,
        "How much room layers take that are unpacked where FUSE is missing, in MiB.",
        between=(1, 1 << 30),
    )
    mount_timeout: float = _setting(
        20.0,
        "How long a mount may take, and may be silent when it is used again, in seconds.",
        between=(0.1, 600),
    )
    idle: float = _setting(
        60.0,
        "How long fimd stays without instances where a client has started it, in seconds.",
        between=(0, 86400),
        live=True,
    )
    log_level: str = _setting(
        "info", "The least severe message that is logged.", allowed=LOG_LEVELS, live=True
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item, getattr(self, item.name), "fimd")

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ, file: Path | None = None) -> Self:
        """Read the user's settings; a wrong one is an InvalidArgumentError that names it."""
        return cls(**{name: value for name, (value, _) in read(environ, file).items()})


def read(
    environ: Mapping[str, str] = os.environ, file: Path | None = None
) -> dict[str, tuple[Any, str]]:
    """Return every setting's value and where it comes from: "default", a path, or a variable.

    Raises InvalidArgumentError, which names the setting and its place.
    """
    path = file or settings_file(environ)
    known = {item.name: item for item in fields(Settings)}
    values = {name: (item.default, DEFAULT_ORIGIN) for name, item in known.items()}
    for name, value in _written(path).items():
        if name not in known:
            raise InvalidArgumentError(
                f"{path}: there is no setting {name!r}: there are {', '.join(known)}"
            )
        values[name] = (_check(known[name], value, str(path)), str(path))
    for name, item in known.items():
        variable = f"FIMD_{name.upper()}"
        if variable in environ:
            values[name] = (_check(item, environ[variable], variable), variable)
    return values


def settings_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the user's settings are, whether or not the file is there."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    return Path(base) / "fimd" / "fimd.toml"


def _written(path: Path) -> dict[str, object]:
    try:
        if path.exists() and not path.is_file():
            raise InvalidArgumentError(f"{path}: it is no regular file")
        with path.open("rb") as file:
            return tomllib.loads(file.read(_LARGEST_FILE).decode())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgumentError(f"{path}: {error}") from error


def _check(item: "Field[Any]", value: object, origin: str) -> Any:
    """Return `value` as the type of the setting's default. Raises InvalidArgumentError."""
    kind: type = type(item.default)
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError
        if kind is not str and (not isinstance(value, str) and kind(value) != value):
            raise TypeError
        if kind is str and not isinstance(value, str):
            raise TypeError
        converted = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgumentError(
            f"{origin}: setting {item.name} can't be {value!r}: it is of type {kind.__name__}"
        ) from None
    allowed, (low, high) = item.metadata["allowed"], item.metadata["between"]
    if kind is str and converted not in allowed:
        raise InvalidArgumentError(
            f"{origin}: setting {item.name} can't be {value!r}: it is one of {', '.join(allowed)}"
        )
    if kind is not str and not low <= converted <= high:
        raise InvalidArgumentError(
            f"{origin}: setting {item.name} can't be {value}: it is between {low} and {high}"
        )
    return converted
