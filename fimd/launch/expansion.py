"""Which stored words have to be expanded, as a shell does, in the caller's process.

The daemon never expands: `$(...)` runs commands, and variables are the caller's.
"""

from typing import Final

_SPECIAL: Final = frozenset("$`~'\"\\*?[")
_PROMPTS: Final = ("PS0", "PS1", "PS2", "PS3", "PS4")


def needs_expansion(text: str) -> bool:
    """Tell whether expansion could change a word."""
    return not _SPECIAL.isdisjoint(text)


def is_variable_to_expand(key: str, value: str) -> bool:
    """Tell whether expansion could change a variable. A prompt's backslashes are the shell's."""
    return needs_expansion(key) or (needs_expansion(value) and key not in _PROMPTS)
