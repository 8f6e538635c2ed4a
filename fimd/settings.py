"""What a user can set: built-in defaults, then ~/.config/fimd/fimd.toml, then FIMD_* variables."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from fimd.errors import InvalidArgumentError

ENGINES = ("auto", "external", "embedded")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """The daemon's settings. Times are seconds, sizes MiB."""

    linger: float = 20.0
    """How long a layer that nobody uses stays mounted."""
    engine: str = "auto"
    """Which DwarFS mounts layers: external where `dwarfs` is installed (auto), or one of them."""
    casefold_engine: str = "auto"
    """Which program is the case-insensitive view: external `ciopfs`, or the embedded one."""
    cache: int = 128
    """Uncompressed blocks that one embedded layer keeps in memory, in MiB."""
    mount_timeout: float = 20.0
    """How long a mount may take."""
    log_level: str = "info"
    """The least severe message that is logged."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("engine", self.engine, ENGINES),
            ("casefold_engine", self.casefold_engine, ENGINES),
            ("log_level", self.log_level, LOG_LEVELS),
        ):
            if value not in allowed:
                raise InvalidArgumentError(
                    f"setting {name}: {value!r} is none of {', '.join(allowed)}"
                )
        for name, number, low, high in (
            ("linger", self.linger, 0, 86400),
            ("cache", self.cache, 1, 65536),
            ("mount_timeout", self.mount_timeout, 0.1, 600),
        ):
            if not low <= number <= high:
                raise InvalidArgumentError(
                    f"setting {name}: {number} is not between {low} and {high}"
                )

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ, file: Path | None = None) -> Self:
        """Read the user's settings; a wrong one is an InvalidArgumentError that names it."""
        values: dict[str, Any] = {}
        path = file or settings_file(environ)
        try:
            written = tomllib.loads(path.read_text())
        except FileNotFoundError:
            written = {}
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidArgumentError(f"{path}: {error}") from error
        kinds = {field.name: type(field.default) for field in fields(cls)}
        for name, value in written.items():
            if name not in kinds:
                raise InvalidArgumentError(f"{path}: there is no setting {name!r}")
            values[name] = _convert(name, value, kinds[name], str(path))
        for name, kind in kinds.items():
            variable = f"FIMD_{name.upper()}"
            if variable in environ:
                values[name] = _convert(name, environ[variable], kind, variable)
        return cls(**values)


def settings_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the user's settings are, whether or not the file is there."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    return Path(base) / "fimd" / "fimd.toml"


def _convert(name: str, value: object, kind: type, origin: str) -> object:
    """Make `value` the type that the setting's default has."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError
        if kind is str and not isinstance(value, str):
            raise TypeError
        return kind(value)
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"{origin}: setting {name} can't be {value!r}; it is of type {kind.__name__}"
        ) from None
