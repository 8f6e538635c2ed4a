"""Expansion of FIM_LAYERS, the caller's own word: with commands, in the caller's process.

What an image stores is expanded by the daemon, and a command in it is none of the host's
(fimd.launch.expansion).
"""

import os
import subprocess
from collections.abc import Mapping
from typing import Final

from fimctl.errors import ClientError
from fimd.launch.expansion import expand

_SECONDS: Final = 60.0
# The word goes as an argument, so that nothing in it can end the quotes around it.
_SCRIPT: Final = 'eval "word=$1"; printf %s. "$word"'


def expand_own(text: str, variables: Mapping[str, str]) -> str:
    """Return the text expanded as a shell does it, without splitting. Raises ClientError."""
    word = expand(text, variables)
    if not word.code:
        return word.text
    try:
        done = subprocess.run(
            ["sh", "-c", _SCRIPT, "sh", word.code],
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClientError(f"{text} took more than {_SECONDS:g} s: change FIM_LAYERS") from None
    except (OSError, ValueError):
        return text
    return os.fsdecode(done.stdout[:-1]) if done.stdout.endswith(b".") else text
