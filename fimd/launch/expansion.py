"""Expansion of stored words: variables and homes, without splitting, and never a command.

What POSIX's wordexp(3) does, as far as it needs no shell: a value with spaces stays whole, patterns
stay as they are (what the host's files are called is nobody's affair inside), and a word that
wordexp would refuse, such as one with an unquoted `>`, stays as it is written. What takes a shell,
`$(...)`, backquotes and `${NAME-...}`, is left for one inside the sandbox.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_SPECIAL: Final = frozenset("$`~'\"\\")
_REFUSED: Final = frozenset("|&;<>(){}\n")
_NAME: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789")
_CLOSING: Final = {"(": ")", "{": "}"}
_PROMPTS: Final = ("PS0", "PS1", "PS2", "PS3", "PS4")


@dataclass(frozen=True)
class Word:
    """A stored word, expanded as far as that takes no shell."""

    text: str
    """The word, with what is left for a shell as it is written."""
    code: str = ""
    """The word for a shell to assign (`x=CODE`), which runs commands; empty where it has none."""


def expand(text: str, variables: Mapping[str, str]) -> Word:
    """Return the text expanded with these variables, or as it is where it can't be."""
    if _SPECIAL.isdisjoint(text):
        return Word(text)
    try:
        return _Expansion(text, variables).result()
    except _RefusedError:
        return Word(text)


def expand_value(key: str, value: str, variables: Mapping[str, str]) -> Word:
    """Return the value of a stored variable expanded; a prompt is the shell's own affair."""
    return Word(value) if key in _PROMPTS else expand(value, variables)


def is_name(text: str) -> bool:
    """Tell whether a shell could have a variable of that name."""
    return bool(text) and _NAME.issuperset(text) and not text[0].isdigit()


def quoted(text: str) -> str:
    """Return a text as a shell takes it for itself."""
    return "'" + text.replace("'", "'\\''") + "'"


class _RefusedError(Exception):
    """The word is none that a shell would expand."""


class _Expansion:
    """One text on its way to being expanded."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text = text
        self._variables = variables
        self._at = 0
        self._done: list[tuple[str, bool]] = []
        """Pieces, and whether each is a shell's to expand."""
        self._begins_word = True

    def result(self) -> Word:
        """Return the whole text expanded."""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in _REFUSED:
                raise _RefusedError
            self._step(character)
        text = "".join(piece for piece, _ in self._done)
        if not any(is_code for _, is_code in self._done):
            return Word(text)
        return Word(
            text, "".join(piece if is_code else quoted(piece) for piece, is_code in self._done)
        )

    def _step(self, character: str) -> None:
        if character == "'":
            end = self._find("'", self._at + 1)
            self._add(self._text[self._at + 1 : end])
            self._at = end + 1
        elif character == '"':
            self._quoted()
        elif character == "\\":
            following = self._text[self._at + 1 : self._at + 2]
            if not following:
                raise _RefusedError
            self._add(following if following != "\n" else "")
            self._at += 2
        elif character in "$`":
            self._parameter()
        elif character == "~" and self._begins_word:
            self._tilde()
        else:
            self._add(character)
            self._begins_word = character in " \t:"
            self._at += 1

    def _add(self, piece: str, *, is_code: bool = False) -> None:
        self._done.append((piece, is_code))
        self._begins_word = False

    def _find(self, what: str, start: int) -> int:
        end = self._text.find(what, start)
        if end < 0:
            raise _RefusedError
        return end

    def _quoted(self) -> None:
        """Take a text in double quotes."""
        self._at += 1
        self._add("")
        while True:
            character = self._text[self._at : self._at + 1]
            if not character:
                raise _RefusedError
            if character == '"':
                self._at += 1
                return
            if character in "$`":
                self._parameter()
                continue
            if character == "\\" and self._text[self._at + 1 : self._at + 2] in {*'$`"\\', "\n"}:
                self._at += 1
                character = self._text[self._at].strip("\n")
            self._add(character)
            self._at += 1

    def _tilde(self) -> None:
        end = self._at + 1
        while end < len(self._text) and (self._text[end] in _NAME or self._text[end] in "-."):
            end += 1
        name = self._text[self._at : end]
        self._add((name == "~" and self._variables.get("HOME")) or os.path.expanduser(name))
        self._at = end

    def _parameter(self) -> None:
        """Take what begins with a dollar or a backquote."""
        start = self._at
        following = self._text[start + 1 : start + 2]
        if self._text[start] == "`":
            self._at = self._find("`", start + 1) + 1
            self._add(self._text[start : self._at], is_code=True)
        elif is_name(following):
            end = start + 1
            while end < len(self._text) and self._text[end] in _NAME:
                end += 1
            self._at = end
            self._add(self._variables.get(self._text[start + 1 : end], ""))
        elif following in _CLOSING:
            self._at = self._closing(start + 1)
            inner = self._text[start + 2 : self._at - 1]
            if following == "{" and is_name(inner):
                self._add(self._variables.get(inner, ""))
            else:
                self._add(self._text[start : self._at], is_code=True)
        else:
            self._at += 1
            self._add("$")

    def _closing(self, start: int) -> int:
        """Return where what opens at `start` has closed."""
        opening, depth, at = self._text[start], 0, start
        while at < len(self._text):
            character = self._text[at]
            if character == "\\":
                at += 1
            elif character == "'":
                at = self._find("'", at + 1)
            elif character == '"':
                at = self._end_of_quoted(at)
            elif character == opening:
                depth += 1
            elif character == _CLOSING[opening]:
                depth -= 1
                if depth == 0:
                    return at + 1
            at += 1
        raise _RefusedError

    def _end_of_quoted(self, start: int) -> int:
        at = start + 1
        while at < len(self._text) and self._text[at] != '"':
            at += 2 if self._text[at] == "\\" else 1
        return at
