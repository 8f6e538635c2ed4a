"""Expansion of stored words as a shell does it, in the caller's process: variables and commands.

What POSIX's wordexp(3) does, without splitting: a value with spaces stays whole. Unquoted, a tilde
stands for a home, and a pattern for the first name that it matches. A word that wordexp would
refuse, such as one with an unquoted `>`, stays as it is written.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fimctl.errors import ClientError

_SECONDS: Final = 60.0
_REFUSED: Final = frozenset("|&;<>(){}\n")
_PATTERN: Final = frozenset("*?[")
_NAME: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789")
_CLOSING: Final = {"(": ")", "{": "}"}
_PROMPTS: Final = ("PS0", "PS1", "PS2", "PS3", "PS4")
_EXPORTED: Final = (b"PATH", b"LD_LIBRARY_PATH", b"TERM")
_IDENTITY: Final = (b"HOME", b"USER", b"SHELL", b"XDG_RUNTIME_DIR")


class _RefusedError(Exception):
    """The word is none that a shell would expand."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return the text expanded with these variables, or as it is where it can't be."""
    try:
        return _Expansion(text, variables).result()
    except _RefusedError:
        return text


def expand_variables(
    stored: Mapping[str, str], variables: Mapping[str, str]
) -> Iterable[tuple[str, str]]:
    """Yield stored variables with keys and values expanded, but for the prompts of shells."""
    for key, value in stored.items():
        yield (
            expand(key, variables),
            value if key in _PROMPTS else expand(value, variables),
        )


def expand_plan(
    argv: Sequence[bytes], environment: dict[bytes, bytes], details: Mapping[str, tuple[str, Any]]
) -> list[bytes]:
    """Expand what a launch plan names; return the command line, and change the environment.

    `environment` is the one that the program gets, `details` what StartInstance gave.
    """
    # the caller's variables and those that tell where things are, not other stored ones
    variables = dict(os.environ)
    for key, value in environment.items():
        if key.startswith(b"FIM_") or key in _EXPORTED:
            variables[os.fsdecode(key)] = os.fsdecode(value)
    expanded = [bytes(word) for word in argv]
    for index in details.get("expand-argv", ("au", []))[1]:
        expanded[index] = os.fsencode(expand(os.fsdecode(expanded[index]), variables))
    for variable in details.get("expand-environment", ("aay", []))[1]:
        raw_key, _, raw = os.fsdecode(bytes(variable)).partition("=")
        for name, text in expand_variables({raw_key: raw}, variables):
            if name and "=" not in name and os.fsencode(name) not in _IDENTITY:
                environment[os.fsencode(name)] = os.fsencode(text)
    if "expand-identity" in details:
        passwd = os.fsdecode(bytes(details["expand-identity"][1]))
        _expand_identity(passwd, environment, variables)
    return expanded


def _expand_identity(
    path: str, environment: dict[bytes, bytes], variables: Mapping[str, str]
) -> None:
    """Expand HOME, USER and SHELL, and write them into what is to be /etc/passwd."""
    for name in (b"HOME", b"USER", b"SHELL"):
        environment[name] = os.fsencode(expand(os.fsdecode(environment[name]), variables))
    try:
        with open(path, "r+b") as file:
            _, _, uid, gid, *_ = file.read().split(b":")
            name, home, shell = (
                environment[key].replace(b":", b"").replace(b"\n", b"")
                for key in (b"USER", b"HOME", b"SHELL")
            )
            file.seek(0)
            file.truncate()
            file.write(b":".join((name, b"x", uid, gid, name, home, shell)) + b"\n")
    except (OSError, ValueError) as error:
        raise ClientError(f"{path} can't be written: {error}") from error


class _Expansion:
    """One text on its way to being expanded."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text = text
        self._variables = variables
        self._at = 0
        self._done: list[str] = []
        self._word: list[str] = []
        self._pattern: list[str] = []
        self._is_pattern = False

    def result(self) -> str:
        """Return the whole text expanded."""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in " \t":
                self._end_word()
                self._done.append(character)
                self._at += 1
            elif character in _REFUSED:
                raise _RefusedError
            else:
                self._step(character)
        self._end_word()
        return "".join(self._done)

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
            self._add(self._parameter())
        elif character == "~" and (not self._word or self._word[-1].endswith(":")):
            self._tilde()
        else:
            self._is_pattern = self._is_pattern or character in _PATTERN
            self._add(character, literal=False)
            self._at += 1

    def _add(self, piece: str, *, literal: bool = True) -> None:
        """Add to the word; a literal piece is no part of a pattern, whatever it holds."""
        self._word.append(piece)
        if literal:
            piece = "".join(f"[{one}]" if one in _PATTERN else one for one in piece)
        self._pattern.append(piece)

    def _end_word(self) -> None:
        word = "".join(self._word)
        if self._is_pattern:
            import glob  # noqa: PLC0415 - few words are patterns

            word = min(glob.iglob("".join(self._pattern)), default=word)
        self._done.append(word)
        self._word, self._pattern, self._is_pattern = [], [], False

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
                self._add(self._parameter())
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
        if name == "~" and self._variables.get("HOME"):
            home = self._variables["HOME"]
        else:
            home = os.path.expanduser(name)
        self._add(home)
        self._at = end

    def _parameter(self) -> str:
        """Take what begins with a dollar or a backquote, and return what it stands for."""
        start = self._at
        following = self._text[start + 1 : start + 2]
        if self._text[start] == "`":
            self._at = self._find("`", start + 1) + 1
            return self._ask_shell(self._text[start : self._at])
        if following in _NAME and following and not following.isdigit():
            end = start + 1
            while end < len(self._text) and self._text[end] in _NAME:
                end += 1
            self._at = end
            return self._variables.get(self._text[start + 1 : end], "")
        if following in _CLOSING:
            self._at = self._closing(start + 1)
            inner = self._text[start + 2 : self._at - 1]
            if following == "{" and inner and set(inner) <= _NAME and not inner[0].isdigit():
                return self._variables.get(inner, "")
            return self._ask_shell(self._text[start : self._at])
        self._at += 1
        return "$"

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

    def _ask_shell(self, part: str) -> str:
        """Have a shell expand `$(...)`, `${...}` or a command in backquotes."""
        import subprocess  # noqa: PLC0415 - few words hold a command

        # The part goes as an argument, so that nothing in it can end the quotes around it.
        script = 'eval "word=$1"; printf %s. "$word"'
        try:
            done = subprocess.run(
                ["sh", "-c", script, "sh", part],
                env=dict(self._variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ClientError(
                f"{part} took more than {_SECONDS:g} s: change that setting"
            ) from None
        except (OSError, ValueError):
            raise _RefusedError from None
        if not done.stdout.endswith(b"."):
            raise _RefusedError
        return os.fsdecode(done.stdout[:-1])
