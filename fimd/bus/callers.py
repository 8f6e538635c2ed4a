"""Who a bus name is: its process and its user, as the bus itself says."""

import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from fimd.base.errors import AccessDeniedError
from fimd.bus.connection import BusError, Connection

_REMEMBERED: Final = 256


@dataclass(frozen=True)
class Caller:
    """A connection's credentials."""

    pid: int
    uid: int


class Callers:
    """Remembers the credentials of the latest callers; a bus gives a unique name only once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: OrderedDict[str, Caller] = OrderedDict()

    async def find(self, sender: str) -> Caller:
        """Return who a unique name is. Raises AccessDeniedError where the bus does not know."""
        caller = self._known.get(sender)
        if caller is None:
            try:
                [facts] = await self._connection.ask_bus("GetConnectionCredentials", "s", sender)
            except BusError as error:
                raise AccessDeniedError(f"{sender} can't be identified: {error}") from error
            caller = Caller(facts["ProcessID"].value, facts["UnixUserID"].value)
            self._known[sender] = caller
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return caller

    async def allowed(self, sender: str) -> bool:
        """Tell whether a sender is the daemon's own user."""
        return (await self.find(sender)).uid == os.getuid()
