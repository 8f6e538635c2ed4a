"""Run benchmarks: `python -m tests.bench [NAME …]`; all of them without a name.

Each prints its rows, and its table in docs/performance.md is made anew.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.bench.rows import write
from tests.bench.world import MissingError

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "performance.md"
BENCHMARKS: Final = (
    *("start", "felt", "crowd", "bus", "commit", "layer", "growth", "casefold", "create"),
    "kernel_overlay",
)


def main() -> int:
    """Run what was asked for; the exit code is 1 where something is not reached."""
    parser = argparse.ArgumentParser(prog="packaging/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--no-write", action="store_true", help="leave the documentation as it is")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    missed = False
    for name in arguments.names or BENCHMARKS:
        print(f"==> {name}", flush=True)
        rows = []
        try:
            for row in import_module(f"tests.bench.{name}").measure():
                rows.append(row)
                print(f"  {row}", flush=True)
        except MissingError as reason:
            print(f"  left out: {reason}", flush=True)
            continue
        if not arguments.no_write:
            write(DOCUMENT, name, rows)
        missed |= any(row.reached is False for row in rows)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
