"""What `fimctl doctor` finds out: whether this machine and this session can run images.

One file for each group of checks; a new group is one file and one line here. A check never waits
without a limit, changes nothing outside its scratch directory, and leaves nothing there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from fimd.diagnosis import backends, engines, fuse, namespaces, session, space
from fimd.diagnosis.finding import Finding, problem

Check = Callable[[], Awaitable[list[Finding]]]

GROUPS: Final[dict[str, Check]] = {
    "fuse": fuse.check,
    "sandbox": namespaces.check,
    "backends": backends.check,
    "engines": engines.check,
    "session": session.check,
    "space": space.check,
}
_SECONDS: Final = 15.0


async def diagnose(data: str | None = None) -> dict[str, list[Finding]]:
    """Run every group at once; one that fails or takes too long is a finding itself.

    Overlays are tried in a data directory, too, where one is given, and what is lost there is told.
    """
    groups: dict[str, Check] = {**GROUPS, "backends": partial(backends.check, data)}
    groups["space"] = partial(space.check, data)
    outcomes = await asyncio.gather(*(_run(check) for check in groups.values()))
    return dict(zip(groups, outcomes, strict=True))


async def _run(check: Check) -> list[Finding]:
    try:
        async with asyncio.timeout(_SECONDS):
            return await check()
    except TimeoutError:
        return [problem("checks", f"they took longer than {_SECONDS:g} s", "see what hangs here")]
    except Exception as error:  # noqa: BLE001 - a doctor reports what it stumbles over
        kind = type(error).__name__
        return [problem("checks", f"{kind}: {error}", "report this as a fault of fimd")]
