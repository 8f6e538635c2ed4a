"""`--wait SECONDS`: until others are done with what a command needs for itself."""

import argparse
from typing import Any, Final

_LONGEST: Final = 86400.0


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        default=0.0,
        help="wait so long for others to be done with the data directory, where it is in use",
    )


def wait_option(arguments: argparse.Namespace) -> dict[str, tuple[str, Any]]:
    """Return what the daemon is to be told of it: nothing where nobody waits."""
    return {"wait": ("d", arguments.wait)} if arguments.wait else {}


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{given}' is no number of seconds") from None
    if not 0 <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{given} is not between 0 and {_LONGEST:g} seconds")
    return seconds
