"""One thing that was looked at."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How good it is."""

    OK = "ok"
    NOTE = "note"  # something is missing that has a substitute
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it (empty where nothing is to do)."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def fine(name: str, detail: str) -> Finding:
    """Return a finding that needs nothing done."""
    return Finding(name, Verdict.OK, detail)


def note(name: str, detail: str, remedy: str) -> Finding:
    """Return a finding that one may live with."""
    return Finding(name, Verdict.NOTE, detail, remedy)


def problem(name: str, detail: str, remedy: str) -> Finding:
    """Return a finding that keeps images from running."""
    return Finding(name, Verdict.PROBLEM, detail, remedy)
