"""What the client can't do, as its users see it. On the path of every start: see fimctl.wire."""


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


class failing:  # noqa: N801 - it is used as contextlib's functions are, which take long to import
    """Let an error inside say that an image's command failed to do this."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ClientError):
            error.context = error.context or (f"Failed to {self._action}",)
