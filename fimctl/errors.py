"""What the client can't do, as its users see it."""

from collections.abc import Iterator
from contextlib import contextmanager


class ClientError(Exception):
    """One sentence for standard error, and an exit code.

    That is 125 for every error that is not the program's own, as FlatImage has it. `context` are
    the lines that an image's own command line prints after the sentence.
    """

    context: tuple[str, ...] = ()

    def __init__(self, message: str, code: int = 125, *, context: str = "") -> None:
        super().__init__(message)
        self.code = code
        if context:
            self.context = (context,)


class WordsError(ClientError):
    """The words of an image's command make no sense."""

    context = ("Could not parse arguments",)


class DaemonError(ClientError):
    """The daemon refused a call. `name` is the error's D-Bus name without our prefix."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@contextmanager
def failing(action: str) -> Iterator[None]:
    """Let an error inside say that an image's command failed to do this."""
    try:
        yield
    except ClientError as error:
        error.context = error.context or (f"Failed to {action}",)
        raise
