"""The variables that a program gets inside, over those of the caller.

Bubblewrap sets them: what runs outside of the sandbox has the caller's alone. A stored value that
takes a shell, as `$(date)` does, and whatever is more than bubblewrap takes, is set by the shell
that becomes the program, inside.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fimd.launch.expansion import expand_value, is_name, quoted

_MOST: Final = 1000
"""Variables that bubblewrap sets, which takes 9000 words in all, three for each."""
_HOSTS: Final = ("LD_LIBRARY_PATH", "LD_PRELOAD")
"""Variables of the caller's that are about the host's libraries: an image has others."""
# In a shell of its own, since an error of syntax would end the one that is to become the program.
# The point keeps newlines at the end. What fails leaves the value as it is written.
_EVALUATE: Final = """\
_fimd={code}
_fimd=$( (eval "_fimd=$_fimd"; printf %s. "$_fimd") </dev/null 2>/dev/null)
case $_fimd in *.) export {key}="${{_fimd%.}}";; esac
"""


@dataclass(frozen=True)
class Inside:
    """What sets the variables inside."""

    plain: Mapping[str, str]
    """Variables for bubblewrap to set."""
    script: str
    """What a shell has to read before it becomes the program; empty where that is nothing."""

    def words(self) -> Iterator[str]:
        """Yield the arguments of bubblewrap."""
        for key in _HOSTS:
            if key not in self.plain:
                yield from ("--unsetenv", key)
        for key, value in self.plain.items():
            yield from ("--setenv", key, value)


def inside(
    given: Mapping[str, str],
    stored: Mapping[str, str],
    identity: Mapping[str, str],
    caller: Mapping[str, str],
) -> Inside:
    """Return how a program gets its variables.

    Those that fimd gives, those that the image stores over them, and over all who the program is.
    `caller` is the environment by which stored values are expanded; names never are.
    """
    variables = dict(given)
    code = {}
    for key, value in stored.items():
        if not key or "=" in key or key in identity:
            continue  # the name of none, or one that a stored value does not change
        word = expand_value(key, value, caller)
        variables[key] = value if word.code else word.text
        if word.code and is_name(key):
            code[key] = word.code
    variables |= identity
    plain, more = _divided(variables)
    script = [f"export {key}={quoted(value)}\n" for key, value in more.items()]
    script += [_EVALUATE.format(code=quoted(value), key=key) for key, value in code.items()]
    return Inside(plain, "".join([*script, *(["unset _fimd\n"] if code else [])]))


def _divided(variables: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what bubblewrap sets, and what a shell has to, which can't set every name."""
    plain: dict[str, str] = {}
    more: dict[str, str] = {}
    for key, value in variables.items():
        (plain if len(plain) < _MOST or not is_name(key) else more)[key] = value
    return plain, more
