"""The commands of an image, and what they print, as a script of FlatImage's users sees it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.session import Session

MESSAGE = re.compile(r"^[DIWEC]::[^:]+::\d+::(.*)$")


def texts(output: str) -> list[str]:
    """The texts of message lines; a line that is none of the kind as it is."""
    return [match[1] if (match := MESSAGE.match(line)) else line for line in output.splitlines()]


@dataclass(frozen=True)
class Commands:
    """One image in a session."""

    session: Session
    image: Path
    variables: Mapping[str, str] | None = None

    def silent(self, *words: str) -> None:
        """Do a command that succeeds and prints nothing."""
        assert self.output(*words) == ""

    def output(self, *words: str, **options: Any) -> str:
        """Do a command that succeeds with nothing on stderr; its stdout."""
        return self.session.output(self.image, *words, variables=self.variables, **options)

    def said(self, *words: str) -> list[str]:
        """Do a command that succeeds with nothing on stderr; its messages."""
        return texts(self.output(*words))

    def wrong(self, *words: str) -> list[str]:
        """Do a command whose words are wrong; what it says of them."""
        said = self.refused(*words)
        assert said[-2:] == ["Could not parse arguments", "The program exited with an error"]
        return said[:-2]

    def refused(self, *words: str) -> list[str]:
        """Do a command that fails with nothing on stdout; what it says."""
        done = self.session.run(self.image, *words, variables=self.variables)
        assert (done.returncode, done.stdout) == (125, ""), done
        assert all(MESSAGE.match(line) for line in done.stderr.splitlines()), done
        return texts(done.stderr)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.image.parent / f".{self.image.name}.data"
