"""The program of ours around every program of an image, as words of a launch plan.

It is fimd/launch/entry.c, which says what it does and why; packaging/entry compiles it when the
project is built. On a machine that it does not know, and in a checkout that was set up without a
compiler, there is none.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fimd.launch.targets import Seen

PROGRAM: Final = Path(__file__).with_suffix("")
"""The compiled program, where there is one."""
INDEX: Final = 2
"""Which word of the monitor's says where the descriptor's number is to be written."""
_NUMBER: Final = "0000000000"


def monitor(entry: str, namespaces: tuple[str, str]) -> tuple[str, ...]:
    """Return the words before bubblewrap's; the one at INDEX is yet to be said.

    `namespaces` are links to those to be joined: see fimd.mounts.holder.Holder.links.
    """
    return (entry, "monitor", "", *namespaces)


def init(lock: str, signals: tuple[int, ...], shown: str) -> tuple[str, ...]:
    """Return the words between `entry init` and the program's; the first is what INDEX is of.

    `lock` is a file by its path inside. `signals` get their default action again. `shown` is what
    `said` says.
    """
    return (_NUMBER, lock, letters(signals), shown)


def said(parts: Iterable[Seen]) -> str:
    """Return what parts of the host are inside, as the program takes it."""
    return "".join(map(_said, parts))


def _said(seen: Seen) -> str:
    numbers = (
        os.major(seen.device),
        os.minor(seen.device),
        seen.inode,
        len(os.fsencode(seen.path)),
    )
    return "".join(f"{number}:" for number in numbers) + seen.path


def letters(signals: tuple[int, ...]) -> str:
    """Return signals as the program takes them."""
    return "".join(chr(ord("a") - 1 + number) for number in signals)
