"""The program of ours around every program of an image, as words of a launch plan.

It is fimd/launch/entry.c, which says what it does and why; packaging/entry compiles it when the
project is built. On a machine that it does not know, and in a checkout that was set up without a
compiler, there is none.
"""

from pathlib import Path
from typing import Final

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


def init(lock: str, signals: tuple[int, ...]) -> tuple[str, ...]:
    """Return the words between `entry init` and the program's; the first is what INDEX is of.

    `lock` is a file by its path inside. `signals` get their default action again.
    """
    return (_NUMBER, lock, letters(signals))


def letters(signals: tuple[int, ...]) -> str:
    """Return signals as the program takes them."""
    return "".join(chr(ord("a") - 1 + number) for number in signals)
