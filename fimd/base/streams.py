"""The standard streams of a process whose caller has closed some of them."""

import os
import sys


def fill(*, inheritable: bool) -> None:
    """Have each that is closed lead nowhere: what is opened next would take its place.

    Where it is not `inheritable`, what this process executes finds it closed, as the caller wanted.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, inheritable)
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: SIM115 - for good
