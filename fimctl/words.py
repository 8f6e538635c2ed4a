"""What the commands of an image have in common in how they take their words."""

from collections.abc import Sequence

from fimctl.errors import WordsError


def operation(words: Sequence[str], missing: str) -> tuple[str, list[str]]:
    """Return the first word in lower case, and the rest. Raises WordsError where there is none."""
    if not words:
        raise WordsError(missing)
    return words[0].lower(), list(words[1:])


def refuse_trailing(command: str, words: Sequence[str]) -> None:
    """Raise WordsError where words are left, listing them as FlatImage does."""
    if words:
        listed = "".join(f"'{word}'," for word in words)
        raise WordsError(f"Trailing arguments for {command}: [{listed}]")
