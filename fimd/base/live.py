"""The settings of a running daemon, which can be read anew."""

from dataclasses import fields
from typing import Any

import structlog

from fimd.base import logs
from fimd.base.errors import InvalidArgumentError
from fimd.base.settings import Settings, read

log = structlog.get_logger(__name__)


class LiveSettings:
    """The settings in force, and where each comes from."""

    def __init__(self, settings: Settings, origins: dict[str, str]) -> None:
        self.settings = settings
        self.origins = origins

    @classmethod
    def load(cls) -> "LiveSettings":
        """Read the settings. Raises InvalidArgumentError, which names a wrong one."""
        found = read()
        return cls(Settings(**_values(found)), _origins(found))

    def reload(self) -> bool:
        """Read the settings anew; where one is wrong, all stay as they are, and that is logged.

        What can't change while the daemon runs waits for its next start, with a warning.
        """
        try:
            found = read()
        except InvalidArgumentError as error:
            log.error("settings not reloaded", reason=str(error))
            return False
        values = _values(found)
        for item in fields(Settings):
            old = getattr(self.settings, item.name)
            if values[item.name] != old and not item.metadata["live"]:
                log.warning("setting waits for a restart", setting=item.name)
                found[item.name] = (old, self.origins[item.name])
        self.settings, self.origins = Settings(**_values(found)), _origins(found)
        logs.set_level(self.settings.log_level)
        log.info("settings reloaded")
        return True


def _values(found: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    return {name: value for name, (value, _) in found.items()}


def _origins(found: dict[str, tuple[Any, str]]) -> dict[str, str]:
    return {name: origin for name, (_, origin) in found.items()}
